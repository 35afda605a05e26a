"""What the recognition recipes share of their data: manifests, tokenizer, data sets and batches.

The corpus is LibriSpeech, anything in its layout, or one's own speech by manifests.
"""

import hashlib
import itertools
import json
import logging
import math
import operator
import os
import shutil
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import (
    DynamicItemDataset,
    FilteredSortedDynamicItemDataset,
    add_dynamic_item,
    set_output_keys,
)
from speechbrain.utils.distributed import run_on_main

from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.manifest import prepare_manifest
from mamba_speech.asr.language_model import find_tokenizer
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.audio import load_audio
from mamba_speech.files import write_json
from training.loading import dynamic_batches, loader_options

logger = logging.getLogger(__name__)


def prepare_manifests(hparams, training=True):
    """Write the manifests into the output folder and return where they are.

    Arguments
    ---------
    hparams : dict
    training : bool
        Whether training and validation speech are wanted, or only the test sets.

    Returns
    -------
    (str or None, str or None, dict)
        The training and the validation manifest, and one manifest a test set by name.

    Raises
    ------
    SystemExit
        With one message, if neither a corpus nor manifests are given, or what is given cannot be used.
    """
    try:
        if hparams["train_manifest"] or hparams["test_manifests"]:
            train, valid, tests = _own_manifests(hparams, training)
        elif hparams["data_folder"]:
            train, valid, tests = _librispeech_manifests(hparams, training)
        else:
            raise ValueError(
                "give --data_folder (LibriSpeech or its layout), or --train_manifest for one's own speech"
            )
        for path in (train, valid, *tests.values()):
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such manifest; run once without --skip_prep")
        return train, valid, tests
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _as_list(value):
    """A YAML option that may be a name, a list of names or nothing."""
    return [value] if isinstance(value, str) else list(value or [])


def _librispeech_manifests(hparams, training):
    folder = Path(hparams["output_folder"])
    train, dev, test = (_as_list(hparams[f"{kind}_splits"]) for kind in ("train", "dev", "test"))
    if training and not (train and dev):
        raise ValueError("training needs at least one of --train_splits and one of --dev_splits")
    if not training:
        train, dev = [], []
        if not test:
            raise ValueError("there is nothing to test: name --test_splits")
    options = {"tr_splits": train, "dev_splits": dev, "te_splits": test}
    if training:
        options |= {"merge_lst": train, "merge_name": "train.csv"}
    run_on_main(
        prepare_librispeech,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": str(folder),
            "skip_prep": hparams["skip_prep"],
            **options,
        },
    )
    if len(dev) > 1:
        logger.warning("validation uses the first of dev_splits only: %s", dev[0])
    tests = {split: str(folder / f"{split}.csv") for split in test}
    return (
        (str(folder / "train.csv"), str(folder / f"{dev[0]}.csv"), tests)
        if training
        else (None, None, tests)
    )


def _own_manifests(hparams, training):
    named = {}
    if training:
        if not (hparams["train_manifest"] and hparams["valid_manifest"]):
            raise ValueError(
                "training on manifests needs both --train_manifest and --valid_manifest, "
                "the second with utterances that are not trained on"
            )
        named = {"train": hparams["train_manifest"], "valid": hparams["valid_manifest"]}
    for path in _as_list(hparams["test_manifests"]):
        name = Path(path).stem
        while name in {"train", "valid", *named}:
            name = f"test-{name}"
        named[name] = path
    written = {}
    for name, path in named.items():
        options = {"manifest": path, "save_folder": hparams["output_folder"], "name": name}
        run_on_main(prepare_manifest, kwargs=options | {"skip_prep": hparams["skip_prep"]})
        written[name] = str(Path(hparams["output_folder"]) / f"{name}.csv")
    return written.pop("train", None), written.pop("valid", None), written


def prepare_tokenizer(hparams, train_manifest=None):
    """Learn the tokenizer from the training transcripts, or take a language model's, or load the one that this run has.

    Raises
    ------
    SystemExit
        With one message, if the tokenizer does not fit the transcripts or the output layer, or a trained run's
        would change under it.
    """
    try:
        if train_manifest is not None:
            if hparams.get("pretrained_lm_tokenizer_path"):
                run_on_main(_take_tokenizer, args=(hparams,))
            else:
                run_on_main(_learn_tokenizer, args=(hparams, train_manifest))
        tokenizer = Tokenizer(hparams["tokenizer_file"])
        # a decoder may write any output that it has; CTC's outputs behind the last token are never read
        wrong = operator.ne if "decoder_module" in hparams else operator.gt
        if wrong(len(tokenizer), hparams["output_neurons"]):
            raise ValueError(
                f"{hparams['tokenizer_file']}: holds {len(tokenizer)} tokens, but output_neurons is "
                f"{hparams['output_neurons']}: set --output_neurons {len(tokenizer)}, or give a tokenizer of that size"
            )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return tokenizer


def _take_tokenizer(hparams):
    """Copy a language model's tokenizer into the run, unless the run's own equals it."""
    source = hparams["pretrained_lm_tokenizer_path"]
    found = find_tokenizer(source, hparams["save_folder"])
    tokenizer, model_file = Tokenizer(found), Path(hparams["tokenizer_file"])
    if model_file.is_file():
        if Tokenizer(model_file).labels() == tokenizer.labels():
            return
        if any(model_file.parent.glob("CKPT*")):
            raise ValueError(
                f"{source}: its tokenizer has other tokens than {model_file}, which a model was trained on: give "
                "another --output_folder, or a language model that was trained with this run's tokenizer"
            )
    model_file.parent.mkdir(parents=True, exist_ok=True)
    partial = model_file.with_suffix(".partial")
    shutil.copyfile(found, partial)
    # first, so that a killed start never leaves another tokenizer's record
    model_file.with_suffix(".json").unlink(missing_ok=True)
    os.replace(partial, model_file)


def _learn_tokenizer(hparams, train_manifest):
    model_file = Path(hparams["tokenizer_file"])
    record_file = model_file.with_suffix(".json")
    kind, size = hparams["token_type"], hparams["output_neurons"]
    texts = [row["wrd"] for row in sb.dataio.dataio.load_data_csv(train_manifest).values()]
    digest = hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()
    # the size of a set of characters follows from the text
    record = {"token_type": kind, "size": None if kind == "char" else size, "transcripts": digest}
    if model_file.is_file():
        if record_file.is_file() and json.loads(record_file.read_text(encoding="utf-8")) == record:
            return
        if any(model_file.parent.glob("CKPT*")):
            raise ValueError(
                f"{model_file} was learnt with another token_type, number of tokens or other transcripts than "
                "these, and a model was trained on it: give another --output_folder"
            )
    record_file.unlink(missing_ok=True)
    Tokenizer.train(texts, model_file, kind, size)
    write_json(record_file, record)


def make_datasets(hparams, tokenizer, train_manifest, valid_manifest, test_manifests):
    """Data sets that yield ``id``, ``sig`` (waveform), ``wrd`` (text), ``spk_id``, ``tokens_bos`` and ``tokens_eos``.

    ``tokens_bos`` begin with the start of a sentence, ``tokens_eos`` end with its end. Training utterances are
    left out, counted, where they pass the length limits, where the tokenizer lacks their characters, and where CTC
    needs more encoder frames for their text.

    Returns
    -------
    (DynamicItemDataset or None, DynamicItemDataset or None, dict)
        Training, validation (none without their manifests), and the test sets by name.

    Raises
    ------
    SystemExit
        With one message, if a set is empty, or an utterance is longer than the model's positional table.
    """
    if train_manifest is not None:
        train, valid = _training_sets(hparams, tokenizer, train_manifest, valid_manifest)
    else:
        train = valid = None
    tests = {
        name: DynamicItemDataset.from_csv(path).filtered_sorted(sort_key="duration")
        for name, path in test_manifests.items()
    }
    for name, dataset in tests.items():
        if not len(dataset):
            raise SystemExit(
                f"{test_manifests[name]}: the test set {name} has no utterance: leave it out, or mend its source"
            )
    for name, dataset in {"validation": valid, **tests}.items():
        texts = (
            [] if dataset is None else [dataset.data[index]["wrd"] for index in dataset.data_ids]
        )
        unknown = sum(not tokenizer.spells(text) for text in texts)
        if unknown:
            logger.warning(
                "%s: %d of %d transcripts hold characters that training does not; they count as errors",
                name,
                unknown,
                len(texts),
            )
    heard = [dataset for dataset in (valid, *tests.values()) if dataset is not None]
    if "max_length" in hparams:
        for dataset in heard:
            _check_positions(dataset, tokenizer, hparams)
        if train is not None:
            slowest = min(hparams["speed_changes"]) / 100 if hparams["speed_perturb"] else 1.0
            _check_positions(train, tokenizer, hparams, slowest)
    _add_pipelines(hparams, tokenizer, [train] if train is not None else [], heard)
    return train, valid, tests


def _check_positions(dataset, tokenizer, hparams, speed=1.0):
    """Refuse what is longer than the positional table, before hours of training rather than after."""
    limit = hparams["max_length"]
    frames_a_second = _frames_a_second(hparams) / speed
    for index in dataset.data_ids:
        item = dataset.data[index]
        tokens = len(tokenizer.encode(item["wrd"])) + 1
        # the other attentions compute positions of any number
        frames = (
            math.ceil(item["duration"] * frames_a_second) + 1
            if hparams["attention_type"] == "regularMHA"
            else 0
        )
        if max(tokens, frames) > limit:
            what = f"{tokens} tokens" if tokens > limit else f"{frames} frames"
            raise SystemExit(
                f"utterance {index} has {what}, but the model's table of positions ends at {limit}: give a larger "
                "--max_length (nothing in it is learnt), or cut the utterance"
            )


def _frames_a_second(hparams):
    """Encoder frames, before any perturbation of speed."""
    return 1000 / (hparams["hop_length"] * math.prod(hparams["CNN"].strides))


def _training_sets(hparams, tokenizer, train_manifest, valid_manifest):
    train = _within_limits(DynamicItemDataset.from_csv(train_manifest), tokenizer, hparams)
    if hparams["sorting"] in ("ascending", "descending"):
        train = train.filtered_sorted(
            sort_key="duration", reverse=hparams["sorting"] == "descending"
        )
    elif hparams["sorting"] != "random":
        raise SystemExit(
            f"--sorting must be random, ascending or descending; got {hparams['sorting']!r}"
        )
    valid = DynamicItemDataset.from_csv(valid_manifest).filtered_sorted(sort_key="duration")
    return train, valid


def _add_pipelines(hparams, tokenizer, trained, heard):
    """Audio and text of the data sets that are trained on, and of those that are only listened to."""
    rate, change_speed = hparams["sample_rate"], hparams["speed_perturb"]
    read = partial(load_audio, sample_rate=rate)
    # here rather than in the Brain, so that the loader's workers do it
    read_changed = partial(_read_at_speed, sample_rate=rate, change_speed=change_speed)
    add_dynamic_item(heard, read, ["wav"], ["sig"])
    add_dynamic_item(trained, read if change_speed is None else read_changed, ["wav"], ["sig"])
    encode = partial(_encode, tokenizer=tokenizer)
    add_dynamic_item(trained + heard, encode, ["wrd"], ["tokens_bos", "tokens_eos"])
    keys = ["id", "sig", "wrd", "spk_id", "tokens_bos", "tokens_eos"]
    set_output_keys(trained + heard, keys)


def _read_at_speed(wav, sample_rate, change_speed):
    """A recording (samples,) at one of the speeds of a SpeedPerturb."""
    return change_speed(load_audio(wav, sample_rate).unsqueeze(0)).squeeze(0)


def _encode(text, tokenizer):
    """Tokens of a text after the start of a sentence, and before its end."""
    tokens = tokenizer.encode(text)
    start, end = tokenizer.control
    return tuple(
        torch.tensor(sequence, dtype=torch.long) for sequence in ([start, *tokens], [*tokens, end])
    )


def _within_limits(train, tokenizer, hparams):
    shortest, longest = hparams["shortest_utterance"], hparams["longest_utterance"]
    # frames after subsampling; speed perturbation shortens, and CTC needs a blank between equal neighbours
    fastest = max(hparams["speed_changes"]) / 100 if hparams["speed_perturb"] is not None else 1.0
    frames_a_second = _frames_a_second(hparams) / fastest
    reasons = ("too short", "too long", "of unknown characters", "more text than frames")
    kept, reasons = [], dict.fromkeys(reasons, 0)
    for index in train.data_ids:
        item = train.data[index]
        tokens = tokenizer.encode(item["wrd"])
        needed = len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))
        if item["duration"] < shortest:
            reasons["too short"] += 1
        elif item["duration"] > longest:
            reasons["too long"] += 1
        elif not tokens:
            reasons["of unknown characters"] += 1
        elif needed > item["duration"] * frames_a_second:
            reasons["more text than frames"] += 1
        else:
            kept.append(index)
    if sum(reasons.values()):
        logger.warning(
            "left out of training: %s; %d utterances stay",
            ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count),
            len(kept),
        )
    if not kept:
        raise SystemExit(
            f"no training utterance is left between --shortest_utterance {shortest} and --longest_utterance {longest} "
            "seconds with enough frames for its text"
        )
    return FilteredSortedDynamicItemDataset(train, kept)


def batch_options(hparams, stage, items):
    """The options of a data set's loader, with batches of a fixed size or of utterances of like length.

    Arguments
    ---------
    hparams : dict
    stage : speechbrain.Stage
        Training, or validation.
    items : speechbrain.dataio.dataset.DynamicItemDataset

    Returns
    -------
    dict
    """
    batches = dynamic_batches(hparams, stage, items) if hparams["dynamic_batching"] else None
    return loader_options(hparams, stage, batches, shuffle=hparams["sorting"] == "random")
