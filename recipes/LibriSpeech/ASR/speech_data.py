"""What the recognition recipes share of their data: manifests, transcripts, data sets and batches.

The corpus is LibriSpeech, anything in its layout, or one's own speech by manifests.
"""

import hashlib
import itertools
import logging
import math
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from speechbrain.dataio.dataset import (
    DynamicItemDataset,
    FilteredSortedDynamicItemDataset,
    add_dynamic_item,
    set_output_keys,
)
from speechbrain.utils.distributed import run_on_main
from unknown_characters import check_characters

from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.manifest import MAX_SKIPPED, list_name, prepare_manifest
from data_prep.verify import FULL
from mamba_speech.audio import load_audio
from mamba_speech.text import TextPolicy
from training.loading import dynamic_batches, loader_options
from training.manifests import part, read_manifest

logger = logging.getLogger(__name__)

# of a manifest, besides ID and duration
COLUMNS = ("wav", "spk_id", "wrd")


class Manifests(NamedTuple):
    """The manifests of a run, each a path.

    Attributes
    ----------
    train, valid : str or None
        Speech to train and to validate on; None where only tests are wanted.
    tests : dict of str: str
        Test sets, by name.
    """

    train: str | None
    valid: str | None
    tests: dict


def prepare_manifests(hparams, training=True):
    """Write the manifests into the output folder and return where they are.

    Arguments
    ---------
    hparams : dict
    training : bool
        Whether training and validation speech are wanted, or only the test sets.

    Returns
    -------
    Manifests

    Raises
    ------
    SystemExit
        With one message, if neither a corpus nor manifests are given, or what is given cannot be used.
    """
    try:
        if hparams["train_manifest"] or hparams["test_manifests"]:
            manifests = _own_manifests(hparams, training)
        elif hparams["data_folder"]:
            manifests = _librispeech_manifests(hparams, training)
        else:
            raise ValueError(
                "give --data_folder (LibriSpeech or its layout), or --train_manifest for one's own speech"
            )
        for path in (manifests.train, manifests.valid, *manifests.tests.values()):
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such manifest; run once without --skip_prep")
        return manifests
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _as_list(value):
    """A YAML option that may be a name, a list of names or nothing."""
    return [value] if isinstance(value, str) else list(value or [])


def _librispeech_manifests(hparams, training):
    folder = Path(hparams["output_folder"])
    names = ("train_splits", "dev_splits", "test_splits")
    train, dev, test = (_as_list(hparams[name]) for name in names)
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
            "verify": hparams.get("verify", FULL),
            "policy": TextPolicy.of(hparams),
            **options,
        },
    )
    if len(dev) > 1:
        logger.warning("validation uses the first of dev_splits only: %s", dev[0])
    tests = {split: str(folder / f"{split}.csv") for split in test}
    if not training:
        return Manifests(None, None, tests)
    return Manifests(str(folder / "train.csv"), str(folder / f"{dev[0]}.csv"), tests)


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
        name = list_name(path)
        while name in {"train", "valid", *named}:
            name = f"test-{name}"
        named[name] = path
    written = {}
    for name, path in named.items():
        options = {"manifest": path, "save_folder": hparams["output_folder"], "name": name}
        options |= {"skip_prep": hparams["skip_prep"], "verify": hparams.get("verify", FULL)}
        options |= {"max_skipped": hparams.get("max_skipped", MAX_SKIPPED)}
        options["policy"] = TextPolicy.of(hparams)
        run_on_main(prepare_manifest, kwargs=options)
        written[name] = str(Path(hparams["output_folder"]) / f"{name}.csv")
    return Manifests(written.pop("train", None), written.pop("valid", None), written)


def read_speech(manifest, policy):
    """The rows of a manifest by their ids, with their texts under a policy.

    The preparation has applied the policy already, but not to the manifests that ``--skip_prep`` takes as they are.

    Arguments
    ---------
    manifest : str or Path
        Manifest that :func:`prepare_manifests` wrote.
    policy : mamba_speech.text.TextPolicy
    """
    rows = {}
    for name, row in read_manifest(manifest, COLUMNS).items():
        text = policy.normalise(row["wrd"])
        if text and not policy.fault(text):
            rows[name] = row | {"wrd": text}
    return rows


class Transcripts:
    """The transcripts of a training manifest, as text that a tokenizer is learnt from.

    Arguments
    ---------
    manifest : str or Path
        Manifest that :func:`prepare_manifests` wrote.
    policy : mamba_speech.text.TextPolicy, optional
    """

    def __init__(self, manifest, policy=None):
        self.manifest, self.policy = manifest, TextPolicy() if policy is None else policy

    def identity(self):
        """A hash of the transcripts, whatever their order, and wherever the recordings lie."""
        digest = hashlib.sha256("\n".join(sorted(self.sentences())).encode()).hexdigest()
        return {"transcripts": digest}

    def sentences(self):
        """A list of all transcripts."""
        return self._read

    @cached_property
    def _read(self):
        return [row["wrd"] for row in read_speech(self.manifest, self.policy).values()]


def make_datasets(hparams, tokenizer, manifests, has_decoder):
    """Data sets that yield ``id``, ``sig`` (waveform), ``wrd`` (text), ``spk_id``, ``tokens_bos`` and ``tokens_eos``.

    ``tokens_bos`` begin with the start of a sentence, ``tokens_eos`` end with its end. Training utterances are
    left out, counted, where they pass the length limits, where the tokenizer lacks their characters, and where CTC
    needs more encoder frames for their text.

    Arguments
    ---------
    hparams : dict
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    manifests : Manifests
    has_decoder : bool
        Whether the model has a decoder, and so a table of ``max_length`` positions.

    Returns
    -------
    (DynamicItemDataset or None, DynamicItemDataset or None, dict)
        Training, validation (none without their manifests), and the test sets by name.

    Raises
    ------
    SystemExit
        With one message, if a set is empty, if the tokenizer lacks too many of its characters, or if an utterance is
        longer than the model's table of positions.
    """
    train = valid = None
    policy = TextPolicy.of(hparams)
    if manifests.train is not None:
        train = _training_set(hparams, tokenizer, manifests.train)
        valid = _shortest_first(manifests.valid, policy)
    tests = {name: _shortest_first(path, policy) for name, path in manifests.tests.items()}
    for name, dataset in tests.items():
        if not len(dataset):
            raise SystemExit(
                f"{manifests.tests[name]}: the test set {name} has no utterance: leave it out, or mend its source"
            )
    heard = tests if valid is None else {"validation": valid} | tests
    for name, dataset in heard.items():
        texts = [dataset.data[index]["wrd"] for index in dataset.data_ids]
        check_characters(name, texts, tokenizer, hparams)
    heard, trained = list(heard.values()), [] if train is None else [train]
    if has_decoder:
        for dataset in heard:
            _check_positions(dataset, tokenizer, hparams)
        for dataset in trained:
            slowest = min(hparams["speed_changes"]) / 100 if hparams["speed_perturb"] else 1.0
            _check_positions(dataset, tokenizer, hparams, slowest)
    _add_pipelines(hparams, tokenizer, trained, heard)
    return train, valid, tests


def _shortest_first(manifest, policy):
    rows = DynamicItemDataset(read_speech(manifest, policy))
    return rows.filtered_sorted(sort_key="duration")


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


def _training_set(hparams, tokenizer, manifest):
    rows = read_speech(manifest, TextPolicy.of(hparams))
    check_characters("train", [row["wrd"] for row in rows.values()], tokenizer, hparams, True)
    train = _within_limits(DynamicItemDataset(rows), tokenizer, hparams)
    if hparams["sorting"] in ("ascending", "descending"):
        return train.filtered_sorted(
            sort_key="duration", reverse=hparams["sorting"] == "descending"
        )
    return train


def _add_pipelines(hparams, tokenizer, trained, heard):
    """Audio and text of the data sets that are trained on, and of those that are only listened to."""
    rate, change_speed = hparams["sample_rate"], hparams["speed_perturb"]
    read = partial(_read, sample_rate=rate)
    # here rather than in the Brain, so that the loader's workers do it
    read_changed = partial(_read_at_speed, sample_rate=rate, change_speed=change_speed)
    taken = ["wav", "start", "stop"]
    add_dynamic_item(heard, read, taken, ["sig"])
    add_dynamic_item(trained, read if change_speed is None else read_changed, taken, ["sig"])
    encode = partial(_encode, tokenizer=tokenizer)
    add_dynamic_item(trained + heard, encode, ["wrd"], ["tokens_bos", "tokens_eos"])
    keys = ["id", "sig", "wrd", "spk_id", "tokens_bos", "tokens_eos"]
    set_output_keys(trained + heard, keys)


def _read(wav, start, stop, sample_rate):
    """An utterance (samples,): a recording, or the part of it between two samples of the file."""
    return load_audio(wav, sample_rate, *part(start, stop))


def _read_at_speed(wav, start, stop, sample_rate, change_speed):
    """An utterance (samples,) at one of the speeds of a SpeedPerturb."""
    return change_speed(_read(wav, start, stop, sample_rate).unsqueeze(0)).squeeze(0)


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
