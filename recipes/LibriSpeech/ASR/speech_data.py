"""What the recognition recipes share of their data: manifests, units, data sets and batches.

The corpus is LibriSpeech, anything in its layout, or one's own speech by manifests.
"""

import itertools
import logging
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import (
    DynamicItemDataset,
    FilteredSortedDynamicItemDataset,
    add_dynamic_item,
    set_output_keys,
)
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.utils.distributed import run_on_main

from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.manifest import prepare_manifest
from inference.audio import load_audio
from inference.units import Units

logger = logging.getLogger(__name__)


def prepare_manifests(hparams):
    """Write the manifests into the output folder and return where they are.

    Returns
    -------
    (str, str, dict)
        The training and the validation manifest, and one manifest a test set by name.

    Raises
    ------
    SystemExit
        With one message, if neither a corpus nor manifests are given, or what is given can not be used.
    """
    try:
        if hparams["train_manifest"]:
            return _own_manifests(hparams)
        if not hparams["data_folder"]:
            raise ValueError(
                "give --data_folder (LibriSpeech or its layout), or --train_manifest for one's own speech"
            )
        return _librispeech_manifests(hparams)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _librispeech_manifests(hparams):
    folder = Path(hparams["output_folder"])
    run_on_main(
        prepare_librispeech,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": str(folder),
            "tr_splits": hparams["train_splits"],
            "dev_splits": hparams["dev_splits"],
            "te_splits": hparams["test_splits"],
            "merge_lst": hparams["train_splits"],
            "merge_name": "train.csv",
            "skip_prep": hparams["skip_prep"],
        },
    )
    if len(hparams["dev_splits"]) > 1:
        logger.warning("validation uses the first of dev_splits only: %s", hparams["dev_splits"][0])
    tests = {split: str(folder / f"{split}.csv") for split in hparams["test_splits"]}
    return str(folder / "train.csv"), str(folder / f"{hparams['dev_splits'][0]}.csv"), tests


def _own_manifests(hparams):
    if not hparams["valid_manifest"]:
        raise ValueError(
            "--train_manifest needs --valid_manifest beside it: utterances that are not trained on"
        )
    tests = hparams["test_manifests"] or []
    named = {"train": hparams["train_manifest"], "valid": hparams["valid_manifest"]}
    for path in [tests] if isinstance(tests, str) else tests:
        name = Path(path).stem
        while name in named:
            name = f"test-{name}"
        named[name] = path
    written = {}
    for name, path in named.items():
        options = {"manifest": path, "save_folder": hparams["output_folder"], "name": name}
        run_on_main(prepare_manifest, kwargs=options | {"skip_prep": hparams["skip_prep"]})
        written[name] = str(Path(hparams["output_folder"]) / f"{name}.csv")
    return written.pop("train"), written.pop("valid"), written


def prepare_units(hparams, train_manifest):
    """Learn the units from the training transcripts, or load those that an earlier start of this run learnt.

    Raises
    ------
    SystemExit
        With one message, if the units do not fit the transcripts or the output layer.
    """
    model_file = Path(hparams["units_file"])
    kind, size = hparams["token_type"], hparams["output_neurons"]
    try:
        if not model_file.is_file():
            texts = [row["wrd"] for row in sb.dataio.dataio.load_data_csv(train_manifest).values()]
            run_on_main(Units.train, args=(texts, model_file, kind, size))
        units = Units(model_file)
        if len(units) > size:
            raise ValueError(
                f"{model_file}: holds {len(units)} units, but output_neurons is {size}"
            )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return units


def make_datasets(hparams, units, train_manifest, valid_manifest, test_manifests):
    """Data sets that yield ``id``, ``sig`` (waveform), ``wrd`` (text), ``spk_id`` and ``tokens``.

    Training utterances under or over the length limits, or with fewer encoder frames than CTC needs for their
    text, are left out, counted.

    Returns
    -------
    (DynamicItemDataset, DynamicItemDataset, dict)
        Training, validation, and the test sets by name.
    """
    train = DynamicItemDataset.from_csv(train_manifest)
    train = _within_limits(train, units, hparams)
    if hparams["sorting"] in ("ascending", "descending"):
        train = train.filtered_sorted(
            sort_key="duration", reverse=hparams["sorting"] == "descending"
        )
    elif hparams["sorting"] != "random":
        raise SystemExit(
            f"--sorting must be random, ascending or descending; got {hparams['sorting']!r}"
        )
    valid = DynamicItemDataset.from_csv(valid_manifest).filtered_sorted(sort_key="duration")
    tests = {
        name: DynamicItemDataset.from_csv(path).filtered_sorted(sort_key="duration")
        for name, path in test_manifests.items()
    }

    rate = hparams["sample_rate"]
    perturb = hparams["speed_perturb"]

    @sb.utils.data_pipeline.takes("wav")
    @sb.utils.data_pipeline.provides("sig")
    def read(wav):
        return load_audio(wav, rate)

    @sb.utils.data_pipeline.takes("wav")
    @sb.utils.data_pipeline.provides("sig")
    def read_and_perturb(wav):
        # here rather than in the Brain, so that the loader's workers do it
        waveform = load_audio(wav, rate)
        return waveform if perturb is None else perturb(waveform.unsqueeze(0)).squeeze(0)

    @sb.utils.data_pipeline.takes("wrd")
    @sb.utils.data_pipeline.provides("tokens")
    def encode(wrd):
        return torch.tensor(units.encode(wrd), dtype=torch.long)

    add_dynamic_item([train], read_and_perturb)
    add_dynamic_item([valid, *tests.values()], read)
    everything = [train, valid, *tests.values()]
    add_dynamic_item(everything, encode)
    set_output_keys(everything, ["id", "sig", "wrd", "spk_id", "tokens"])
    return train, valid, tests


def _within_limits(train, units, hparams):
    shortest, longest = hparams["shortest_utterance"], hparams["longest_utterance"]
    # frames after subsampling; speed perturbation shortens, and CTC needs a blank between equal neighbours
    fastest = max(hparams["speed_changes"]) / 100 if hparams["speed_perturb"] is not None else 1.0
    frames_a_second = 1000 / (hparams["hop_length"] * hparams["subsampling"]) / fastest
    kept, reasons = [], {"too short": 0, "too long": 0, "more text than frames": 0}
    for index in train.data_ids:
        item = train.data[index]
        tokens = units.encode(item["wrd"])
        needed = len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))
        if item["duration"] < shortest:
            reasons["too short"] += 1
        elif item["duration"] > longest:
            reasons["too long"] += 1
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


def loader_options(hparams, train, valid):
    """Options for the training and validation loaders, and the sampler that wants to know the epoch."""
    common = {"num_workers": hparams["num_workers"]}
    if not hparams["dynamic_batching"]:
        shuffle = hparams["sorting"] == "random"
        train_options = common | {"batch_size": hparams["batch_size"], "shuffle": shuffle}
        return train_options, common | {"batch_size": hparams["valid_batch_size"]}, None
    options = {
        "num_buckets": hparams["num_bucket"],
        "max_batch_ex": hparams["max_batch_ex"],
        "length_func": lambda item: item["duration"],
        "seed": hparams["seed"],
    }
    sampler = DynamicBatchSampler(
        train,
        max_batch_length=hparams["max_batch_length_train"],
        shuffle=hparams["sorting"] == "random",
        batch_ordering=hparams["sorting"],
        **options,
    )
    valid_sampler = DynamicBatchSampler(
        valid,
        max_batch_length=hparams["max_batch_len_val"],
        shuffle=False,
        batch_ordering="descending",
        **options,
    )
    return common | {"batch_sampler": sampler}, common | {"batch_sampler": valid_sampler}, sampler
