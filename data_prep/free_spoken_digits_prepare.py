"""Preparation of the Free Spoken Digit Dataset for keyword spotting, one speaker held out.

The recordings are few, of few speakers and at 8 kHz; testing on each speaker in turn uses them
best. Source: https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.
"""

import logging
import re
from pathlib import Path

from data_prep.keywords.clips import check_clips, warn_of_gaps, write_all
from data_prep.keywords.splits import SPLITS
from data_prep.keywords.words import DIGITS, list_audio
from data_prep.speechcommands_prepare import (
    fingerprint,
    manifest_paths,
)
from data_prep.verify import FULL, Candidate, Skipped, check_verify, is_prepared, write_skipped
from mamba_speech.audio.finding import PassedOver
from mamba_speech.files import write_json

logger = logging.getLogger(__name__)

# `7_jackson_32.wav` is the 33rd recording of a seven by jackson.
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>\w+)_(?P<index>\d+)")

# Without a speaker for validation, so many of the training speakers' recordings serve for it.
VALID_EVERY = 10

RECORD = "free_spoken_digits_prepare.json"
# Part of the record: raised when the manifests change, so that old ones are not taken for new.
VERSION = 1


def prepare_free_spoken_digits(
    data_folder,
    save_folder,
    test_speaker,
    valid_speaker=None,
    clip_seconds=1.0,
    skip_prep=False,
    verify=FULL,
):
    """Write the manifests that `prepare_speechcommands` writes, with the classes zero to nine.

    The other speakers' recordings are for training. Bad recordings are left out and listed, and
    long ones cut, as there. Start and stop count samples at the file's own rate of 8 kHz.

    Arguments
    ---------
    data_folder : str or Path
        The folder `recordings`, or the one above it.
    save_folder : str or Path
        Where the manifests go; made if it is not there.
    test_speaker : str
        Whose recordings are for test: `george`, for example.
    valid_speaker : str, optional
        Whose recordings are for validation. By default every tenth recording of each digit by
        each training speaker, those whose index is a multiple of 10.
    clip_seconds : float, optional
        Longest clip; None keeps every clip whole.
    skip_prep : bool
        Return at once.
    verify : str
        `full` decodes every recording, `header` reads its header and its end.

    Returns
    -------
    prepared : dict
        As `prepare_speechcommands` returns it; there is no noise.

    Raises
    ------
    FileNotFoundError
        If the folder is missing or is not laid out like the corpus.
    ValueError
        If a speaker is not in it, none is left for training, a split has no usable recording, or
        `clip_seconds` is out of range.

    Example
    -------
    >>> paths = prepare_free_spoken_digits("not/needed", "manifests", "theo", skip_prep=True)
    >>> paths["train"].name, paths["noise"]
    ('train.csv', [])
    """
    prepared = manifest_paths(save_folder)
    check_verify(verify)
    if clip_seconds is not None and not clip_seconds > 0:
        raise ValueError(f"clip_seconds must be above 0, or null, not {clip_seconds}")
    if skip_prep:
        return prepared | {"noise": []}
    recordings, foreign = list_recordings(data_folder)
    splits = hold_out(recordings, test_speaker, valid_speaker)
    record = {
        "version": VERSION,
        "contents": fingerprint(splits, []),
        "clip_seconds": clip_seconds,
        "verify": verify,
        "skipped": 0,
    }
    save_folder = Path(save_folder)
    outputs = [path.is_file() for path in prepared.values()]
    lists = [save_folder / f"skipped_{name}.csv" for name in SPLITS]
    if all(outputs) and is_prepared(save_folder / RECORD, record, lists):
        logger.info("the manifests in %s are up to date; preparation skipped", save_folder)
        return prepared | {"noise": []}
    save_folder.mkdir(parents=True, exist_ok=True)
    total = len(recordings) + len(foreign)
    skipped_list = save_folder / "skipped_names.csv"
    write_skipped(skipped_list, foreign, total, str(data_folder), things="files")
    record["skipped"] = len(foreign)
    rows, seen = {}, set()
    for name, clips in splits.items():
        rows[name], skipped = check_clips(clips, name, save_folder, seen, clip_seconds, verify)
        record["skipped"] += skipped
    if valid_speaker is not None:
        warn_of_gaps(rows, DIGITS)
    write_all(prepared, rows, DIGITS, [])
    write_json(save_folder / RECORD, record)
    return prepared | {"noise": []}


def list_recordings(data_folder):
    """The recordings, and the files that are not named as recordings are.

    Returns
    -------
    recordings : list of Candidate
        Sorted by speaker, digit and index; the text is the digit's word.
    foreign : list of Skipped

    Raises
    ------
    FileNotFoundError
        If there is no folder or no recording in it.
    """
    data_folder = Path(data_folder).absolute()
    if not data_folder.is_dir():
        raise FileNotFoundError(
            f"data_folder {data_folder} does not exist; give the folder that holds recordings"
        )
    folder = data_folder / "recordings"
    recordings, foreign, passed = [], [], PassedOver()
    for path in list_audio(folder if folder.is_dir() else data_folder, passed):
        match = NAME.fullmatch(path.stem)
        if match:
            digit, speaker, index = match.group("digit", "speaker", "index")
            clip = Candidate(path.stem, path, speaker, DIGITS[int(digit)])
            recordings.append((speaker, int(digit), int(index), clip))
        else:
            reason = "the name is not <digit>_<speaker>_<index>"
            foreign.append(Skipped(path.stem, str(path), reason))
    passed.warn(data_folder)
    if not recordings:
        raise FileNotFoundError(
            f"data_folder {data_folder} is not laid out like the Free Spoken Digit Dataset: it has "
            "no recordings/<digit>_<speaker>_<index>.wav"
        )
    return [one for *_, one in sorted(recordings, key=lambda one: one[:3])], foreign


def hold_out(recordings, test_speaker, valid_speaker):
    """Split recordings by speaker.

    Arguments
    ---------
    recordings : list of Candidate
    test_speaker : str
    valid_speaker : str or None

    Returns
    -------
    splits : dict of str to list of Candidate

    Raises
    ------
    ValueError
        If a speaker is not there, is named twice, or nobody is left for training.
    """
    speakers = sorted({one.speaker for one in recordings})
    held_out = {"test_speaker": test_speaker}
    if valid_speaker is not None:
        held_out["valid_speaker"] = valid_speaker
    for option, speaker in held_out.items():
        if speaker not in speakers:
            raise ValueError(
                f"{option} {speaker!r} is not there; choose one of {', '.join(speakers)}"
            )
    if test_speaker == valid_speaker or len(speakers) == len(held_out):
        raise ValueError(
            f"test_speaker {test_speaker} and valid_speaker {valid_speaker} must differ and leave "
            f"some of {', '.join(speakers)} for training"
        )
    splits = {name: [] for name in SPLITS}
    for one in recordings:
        if one.speaker == test_speaker:
            split = "test"
        elif valid_speaker is None:
            index = int(one.id.rpartition("_")[2])
            split = "train" if index % VALID_EVERY else "valid"
        else:
            split = "valid" if one.speaker == valid_speaker else "train"
        splits[split].append(one)
    return splits
