"""The speaker recipe's data: manifests, training crops, validation recordings and trial lists.

The corpus is VoxCeleb, or any folder in its layout. Further folders may add training voices.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from crops import (
    CropBatch,
    NoisePieces,
    RoomSound,
    TimeStretch,
    TrainingCrops,
    make_augmenter,
)
from speechbrain.augment.time_domain import AddNoise
from speechbrain.core import Stage
from speechbrain.utils.distributed import run_on_main
from torch.utils.data import Dataset

from data_prep.trials import read_trials
from data_prep.verify import FULL, HEADER, measure
from data_prep.voxceleb_prepare import prepare_voxceleb
from mamba_speech.audio import find_audio, load_audio
from mamba_speech.files import read_csv, read_json, write_json
from training.loading import loader_options, worker_options
from training.preparation import prepare_once
from training.provenance import hash_list

logger = logging.getLogger(__name__)

# lists that belong to VoxCeleb1's test speakers, the better one first
USUAL_LISTS = ("veri_test2.txt", "veri_test.txt")


class Recordings(NamedTuple):
    """Recordings of a manifest, as arrays: (recordings,) each.

    ``start`` and ``stop`` are samples of the file at its ``rate``. ``speaker`` is a speaker's place in the list of
    training speakers, and -1 for others.
    """

    wav: list
    start: np.ndarray
    stop: np.ndarray
    rate: np.ndarray
    speaker: np.ndarray
    n_speakers: int

    def __len__(self):
        return len(self.wav)


class Prepared(NamedTuple):
    """What the preparation has found.

    Attributes
    ----------
    train, valid : Path
        Manifests.
    speakers : list of str
        Training speakers in the order of the classes.
    valid_trials : data_prep.trials.Trials
        Trials of validation.
    tests : dict of str: data_prep.trials.Trials
        Trial lists to test on, by name.
    files : dict of str: Path
        File of each of these lists, and of ``valid_trials``.
    """

    train: Path
    valid: Path
    speakers: list
    valid_trials: object
    tests: dict
    files: dict


def prepare_speakers(hparams):
    """Write the manifests into the output folder, and read the trial lists.

    Arguments
    ---------
    hparams : dict

    Returns
    -------
    Prepared

    Raises
    ------
    SystemExit
        With one message, if the corpus or a list cannot be used.
    """
    if not hparams["data_folder"]:
        raise SystemExit("give --data_folder: VoxCeleb, or speech in its layout")
    folders = [hparams["data_folder"], *as_list(hparams["other_folders"])]
    places = [*as_list(hparams["trial_folders"]), *folders]
    options = {
        "data_folder": hparams["data_folder"],
        "save_folder": hparams["output_folder"],
        "other_folders": as_list(hparams["other_folders"]),
        "trials": wanted_lists(hparams["trials"], hparams["data_folder"]),
        "trial_folders": as_list(hparams["trial_folders"]),
        "split": hparams["split"],
        "valid_speakers": hparams["valid_speakers"],
        "n_speakers": hparams["n_speakers"],
        "n_utterances": hparams["n_utterances"],
        "valid_fraction": hparams["valid_fraction"],
        "n_valid_trials": hparams["n_valid_trials"],
        "crop_seconds": hparams["crop_seconds"],
        "seed": hparams["data_seed"],
        "verify": hparams.get("verify", FULL),
    }
    needed = ("train", "valid", "valid_trials", "speakers")
    try:
        found = prepare_once(prepare_voxceleb, options, needed, hparams["skip_prep"])
        return Prepared(
            train=Path(found["train"]),
            valid=Path(found["valid"]),
            speakers=read_json(found["speakers"]),
            valid_trials=read_trials(found["valid_trials"], folders),
            tests={name: read_trials(file, places) for name, file in found["trials"].items()},
            files=dict(found["trials"]) | {"valid_trials": Path(found["valid_trials"])},
        )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


def as_list(value):
    """A list of one where one value is given, and of none for null.

    Example
    -------
    >>> as_list(None), as_list("folder"), as_list(["a", "b"])
    ([], ['folder'], ['a', 'b'])
    """
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | Path) else list(value)


def wanted_lists(trials, data_folder):
    """The trial lists that ``trials`` asks for: ``found``, ``none``, or names and files."""
    if trials == "found":
        places = [Path(data_folder), Path(data_folder) / "meta"]
        found = [place / name for name in USUAL_LISTS for place in places]
        return [str(file) for file in found if file.is_file()][:1]
    return [] if trials == "none" else as_list(trials)


def keep_speakers(prepared, folder):
    """Note beside the checkpoints who and what a run is trained on; where the recordings lie does not matter.

    Arguments
    ---------
    prepared : Prepared
    folder : Path
        Of the checkpoints.

    Raises
    ------
    SystemExit
        If the checkpoints there come of other data: their result would be told of these.
    """
    try:
        now = {name: hash_list(getattr(prepared, name)) for name in ("train", "valid")}
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    now["speakers"] = prepared.speakers
    record = folder / "speakers.json"
    if record.is_file() and any(folder.glob("CKPT*")):
        before = read_json(record)
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise SystemExit(
                f"{folder}: the model there was trained with other data ({' and '.join(changed)} changed): give "
                "another --output_folder, or the data that the run was started with; --test_only tests it on these"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, now)


def read_recordings(manifest, speakers):
    """Recordings of a manifest, which is read row by row.

    Arguments
    ---------
    manifest : Path
    speakers : list of str
        Training speakers.

    Returns
    -------
    Recordings

    Raises
    ------
    OSError, ValueError
        If it is not there, or is no such manifest.
    """
    index = {name: number for number, name in enumerate(speakers)}
    wav, numbers = [], []
    columns = ("wav", "start", "stop", "duration", "speaker")
    for line, row in read_csv(manifest, columns)[1]:
        try:
            start, stop = int(row["start"]), int(row["stop"])
            rate = round((stop - start) / float(row["duration"]))
        except (ValueError, OverflowError, ZeroDivisionError) as error:
            raise ValueError(
                f"{manifest}, line {line}: start, stop or duration is wrong"
            ) from error
        wav.append(row["wav"])
        numbers.append((start, stop, rate, index.get(row["speaker"], -1)))
    columns = np.array(numbers, dtype=np.int64).reshape(-1, 4).T
    return Recordings(wav, *columns, n_speakers=len(speakers))


class WholeRecordings(Dataset):
    """Recordings read whole, for validation: ``wav``, ``sig`` (samples,) and ``target``, a class or -1.

    Arguments
    ---------
    paths : list of str
    targets : list of int
    sample_rate : int
    """

    def __init__(self, paths, targets, sample_rate):
        self.paths, self.targets, self.sample_rate = paths, targets, sample_rate

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        wav = self.paths[index]
        return {
            "wav": wav,
            "sig": load_audio(wav, self.sample_rate),
            "target": self.targets[index],
        }


def only_item(items):
    """The one item of a batch of one."""
    (item,) = items
    return item


def make_datasets(hparams, prepared):
    """Training crops and validation recordings.

    Every recording of the validation trials is among the latter, and in a classification every validation utterance.

    Arguments
    ---------
    hparams : dict
    prepared : Prepared

    Returns
    -------
    (TrainingCrops, WholeRecordings)

    Raises
    ------
    SystemExit
        If an option is outside its range, or a folder of noise or rooms holds nothing to use.
    """
    rate = hparams["sample_rate"]
    try:
        rows = read_recordings(prepared.train, prepared.speakers)
        _, longest = crop_lengths(hparams)
        changes, drawn = training_changes(hparams)
        train = TrainingCrops(
            rows,
            rate,
            longest,
            hparams["speeds"],
            make_augmenter(changes, hparams["augment_probability"]),
            hparams["crops_per_recording"],
            hparams["crops_per_speaker"],
            drawn,
        )
        targets = {}
        if hparams["split"] == "utterance":
            valid = read_recordings(prepared.valid, prepared.speakers)
            targets = dict(zip(valid.wav, valid.speaker.tolist(), strict=True))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    # a speaker of one validation utterance has a training one in the trials
    for path in prepared.valid_trials.paths:
        targets.setdefault(path, -1)
    return train, WholeRecordings(list(targets), list(targets.values()), rate)


def crop_lengths(hparams):
    """Shortest and longest training crop in samples.

    Raises
    ------
    ValueError
        If a model that reads crops of one length would get others, or a crop is too short.
    """
    rate, model = hparams["sample_rate"], hparams["model"]
    lengths = [round(hparams[key] * rate) for key in ("crop_seconds", "crop_seconds_max")]
    if model.crop_samples is not None and set(lengths) != {model.crop_samples}:
        raise ValueError(
            f"this model reads crops of {model.crop_samples / rate:g} s alone: give --crop_seconds and "
            "--crop_seconds_max that length"
        )
    if lengths[0] < model.min_samples:
        raise ValueError(
            f"crop_seconds {hparams['crop_seconds']:g} is too short: the model needs {model.min_samples} samples, "
            f"{model.min_samples / rate:g} s"
        )
    if hparams["time_stretch"] and lengths[1] < TimeStretch.min_samples:
        raise ValueError(
            f"crop_seconds_max {hparams['crop_seconds_max']:g} is too short for time_stretch, which needs "
            f"{TimeStretch.min_samples} samples: set --crop_seconds_max higher, or --time_stretch null"
        )
    CropBatch(*lengths)
    return lengths


def training_changes(hparams):
    """What may happen to a training crop, a noise, a room, another tempo; and the files that are drawn for it."""
    rate, changes, drawn = hparams["sample_rate"], [], []
    if hparams["rir_folder"]:
        changes.append(RoomSound(usable_audio(hparams, "rir_folder"), rate))
        drawn.append(changes[-1].files)
    if hparams["noise_folder"]:
        low, high = hparams["noise_snr"]
        pieces = NoisePieces(usable_audio(hparams, "noise_folder"), rate)
        changes.append(AddNoise(noise_funct=pieces, snr_low=low, snr_high=high))
        drawn.append(pieces.files)
    if hparams["time_stretch"]:
        changes.append(TimeStretch(*hparams["time_stretch"]))
    return changes, drawn


def usable_audio(hparams, option):
    """The sound files of a folder, in order; the others are counted, and the first is named.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    files = find_audio([hparams[option]])
    faults = {str(file): measure(file, HEADER)[1] for file in files}
    good = [file for file, fault in faults.items() if fault is None]
    if not good:
        raise FileNotFoundError(
            f"{option} {hparams[option]}: holds no sound that can be read; give another folder, or none"
        )
    if len(good) < len(files):
        bad = next(file for file, fault in faults.items() if fault)
        logger.warning(
            "%d of %d files of %s cannot be used, for example %s (%s)",
            len(files) - len(good),
            len(files),
            hparams[option],
            bad,
            faults[bad],
        )
    return good


def training_options(hparams):
    """The options of the training loader."""
    collate = CropBatch(*crop_lengths(hparams))
    return loader_options(hparams, Stage.TRAIN, collate=collate, drop_last=hparams["drop_last"])


def validation_options(hparams):
    """The options of the validation loader: one recording at a time, as in use."""
    return worker_options(hparams) | {"batch_size": 1, "collate_fn": only_item}


def keep_data(hparams, prepared):
    """Note what a run is trained on, in the main process; see :func:`keep_speakers`."""
    run_on_main(keep_speakers, args=(prepared, Path(hparams["save_folder"])))
