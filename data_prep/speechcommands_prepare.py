"""Preparation of Speech Commands, or of any folder of word folders, for keyword spotting.

Splits the clips by the corpus' own rule or lists, forms the classes, crops silence from the noise
recordings and writes one CSV manifest a split. Source: Warden, "Speech Commands: A dataset for
limited-vocabulary speech recognition", arXiv 1804.03209, sections 5 to 7; the archives are
https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz and v0.01.
"""

import hashlib
import logging
import os
import zlib
from math import ceil
from pathlib import Path

import numpy as np

from data_prep.contents import fingerprint as fingerprint_files
from data_prep.keywords.backgrounds import list_noise
from data_prep.keywords.clips import (
    NOISE_FOLDER,
    SILENCE,
    UNKNOWN,
    check_clips,
    check_noise,
    crop_silence,
    warn_of_gaps,
    write_all,
)
from data_prep.keywords.other_speech import (
    check_other_speech,
    crop_other_speech,
    list_other_speech,
    split_other_speech,
)
from data_prep.keywords.splits import SPLITS, assign, read_entries, read_lists
from data_prep.keywords.spoken_speech import AUTO, choose_other_speech
from data_prep.keywords.spoken_words import add_spoken_words
from data_prep.keywords.voices import has_lists, split_by_folder
from data_prep.keywords.words import WORDS, choose_labels, find_root, list_clips, word_folders
from data_prep.verify import FULL, check_verify, is_prepared
from mamba_speech.files import read_json, write_json

logger = logging.getLogger(__name__)

RECORD = "speechcommands_prepare.json"
# Part of the record: raised when the manifests change, so that old ones are not taken for new.
VERSION = 1


def prepare_speechcommands(
    data_folder,
    save_folder,
    version="0.02",
    n_classes=35,
    split="official",
    unknown_percentage=10,
    silence_percentage=10,
    clip_seconds=1.0,
    seed=1234,
    other_speech=None,
    other_speech_percentage=0,
    background=None,
    spoken_voices=0,
    skip_prep=False,
    verify=FULL,
):
    """Write `train.csv`, `valid.csv`, `test.csv`, `labels.json` and `noise.json`.

    A row has ID, duration (seconds), wav, start and stop (samples of the file), label, speaker and
    words. Clips that cannot be used are left out, with a warning that counts them, and listed with
    the reason in `skipped_<split>.csv`. Longer clips than `clip_seconds` give their loudest part,
    as in the paper (section 5.6); shorter ones stay short; both are counted in the log. Nothing is
    done if an earlier run had the same options, and since then no recording came, went, or changed
    its size or its time of change, and what that run left out is still bad.

    Arguments
    ---------
    data_folder : str or Path
        The folder of the word folders, or the one above `speech_commands_v<version>`.
    save_folder : str or Path
        Where the manifests go; made if it is not there.
    version : str
        `0.01` (30 words) or `0.02` (35 words).
    n_classes : int, str or list of str
        35 or, in version 0.01, 30: every word of the corpus, by alphabet. One more than that:
        silence too. 12: the ten commands, `_unknown_` for every other word and `_silence_`. A list
        of words, or words with commas between: those in place of the ten commands. `all`: whatever
        word folders there are, for one's own recordings; where other speech is wanted, `_unknown_` and
        `_silence_` too.
    split : str or Path
        `official`: by the hash of the speaker in the file name (`which_set`); `lists`: by
        `validation_list.txt` and `testing_list.txt` of the corpus, and `training_list.txt` if it
        is there, else the rest trains; or another folder of such lists. `auto`: by the lists of the
        corpus or its table `clips.csv`, with the columns path and part, where it has them; else by
        a draw of voices, see `data_prep.keywords.voices`.
    unknown_percentage, silence_percentage : float
        Clips of these classes for a hundred clips of the words, in every split, drawn by `seed`.
        0 leaves the class out of a list of words.
    clip_seconds : float, optional
        Longest clip; None keeps every clip whole.
    seed : int
    other_speech : str or Path, optional
        Folder of recordings in which no keyword is said, searched through and through; by default
        `_other_speech_` of the corpus. `spoken`: sentences by eSpeak NG; `auto`: these where the
        corpus has no other speech. `list_other_speech` says whose recordings they are. Those of
        a speaker of words go where the words do, others by the hash of the speaker, and all go by
        the list files where these name `_other_speech_/<file>`.
    other_speech_percentage : float
        Pieces of these, `clip_seconds` long, for a hundred clips of the words, in every split and
        beside the other words of `_unknown_`; no two overlap. 0 takes none.
    background : str or Path, optional
        Noise beside the corpus' own `_background_noise_`: `computed`, or a folder.
    spoken_voices : int
        Voices of eSpeak NG that say each word in training, beside the recordings. Where they say
        more clips than are recorded, the percentages of training count theirs.
    skip_prep : bool
        Return at once.
    verify : str
        `full` decodes every recording, `header` reads its header and its end.

    Returns
    -------
    prepared : dict
        Paths of the manifests as `train`, `valid`, `test`; `labels`, a JSON list whose order gives
        the classes their numbers; `noise`, the list of noise recordings (Path). Silence for
        training comes from the first 80 % of each of these, for validation and test from the
        following and the last 10 %.

    Raises
    ------
    FileNotFoundError
        If the folder, a word's folder, a list or, where silence is a class, the noise is missing,
        or other speech where it is wanted.
    ValueError
        If a word folder is empty, a list names a clip twice or an unknown word, a split has no
        usable clip, or an option does not fit.

    Example
    -------
    >>> prepare_speechcommands("not/needed", "manifests", skip_prep=True)["test"].name
    'test.csv'
    """
    save_folder = Path(save_folder)
    prepared = manifest_paths(save_folder)
    version = str(version).removeprefix("v")
    percentages = percentages_of(unknown_percentage, silence_percentage)
    check_options(version, percentages, clip_seconds, seed)
    check_verify(verify)
    if skip_prep:
        return prepared | {"noise": read_noise(prepared["noise"])}
    root = find_root(data_folder, version)
    labels = choose_labels(root, version, n_classes, percentages, other_speech_percentage)
    percentages = {label: percentages[label] for label in (UNKNOWN, SILENCE) if label in labels}
    check_other_options(other_speech, other_speech_percentage, labels)
    clips = list_clips(root, labels)
    noise = list_noise(root, background, words_of(labels), save_folder, seed)
    if SILENCE in labels and not noise:
        raise FileNotFoundError(
            f"{root} has no {NOISE_FOLDER}/*.wav, from which the class {SILENCE} is cropped; put "
            "noise there, set background to computed, or choose n_classes without silence"
        )
    splits, listed = split_clips(root, clips, split, seed)
    others = {}
    if other_speech_percentage:
        folder = choose_other_speech(root, other_speech, words_of(labels), save_folder, seed)
        recordings = list_other_speech(root, folder, words_of(labels))
        others = split_other_speech(recordings, listed, splits)
    record = {
        "version": VERSION,
        "folder": str(root),
        "labels": labels,
        "percentages": percentages,
        "clip_seconds": clip_seconds,
        "seed": seed,
        "contents": fingerprint(splits, noise),
        "verify": verify,
        "skipped": 0,
    }
    if others:
        # only then, so that what was prepared without stays valid
        found = fingerprint(others, [])
        record["other_speech"] = {"percentage": other_speech_percentage, "contents": found}
    if spoken_voices:
        record["spoken_voices"] = spoken_voices
    outputs = [path.is_file() for path in prepared.values()]
    lists = [save_folder / f"skipped_{name}.csv" for name in (*SPLITS, "noise", "other_speech")]
    if all(outputs) and is_prepared(save_folder / RECORD, record, lists):
        logger.info("the manifests in %s are up to date; preparation skipped", save_folder)
        return prepared | {"noise": read_noise(prepared["noise"])}
    save_folder.mkdir(parents=True, exist_ok=True)
    seconds = clip_seconds or 1.0
    noise, record["skipped"] = check_noise(noise, save_folder, seconds, verify)
    if others:
        others, skipped = check_other_speech(others, save_folder, seconds, verify)
        record["skipped"] += skipped
    spoken = []
    if spoken_voices:
        spoken = add_spoken_words(save_folder, words_of(labels), spoken_voices, seed)
    rows, seen = {}, set()
    for name, candidates in splits.items():
        rows[name], skipped = check_clips(candidates, name, save_folder, seen, clip_seconds, verify)
        record["skipped"] += skipped
        # other speech has its own numbers: the rest is drawn as it is without
        random, own = (
            np.random.default_rng([seed, zlib.crc32(name.encode()), *k]) for k in ((), (1,))
        )
        rows[name] = choose_unknown(rows[name], labels, percentages, random)
        # where few clips are recorded, the spoken ones need as much that is no word
        known = max(rows[name], spoken if name == "train" else [], key=lambda one: share(one, 100))
        count = share(known, other_speech_percentage)
        pieces = crop_other_speech(others[name], name, count, seconds, own) if others else []
        if SILENCE in labels:
            count = share(known, percentages[SILENCE])
            rows[name] += crop_silence(noise, name, count, seconds, random)
        rows[name] += pieces
    rows["train"] += spoken
    warn_of_gaps(rows, labels)
    write_all(prepared, rows, labels, [path for path, *_ in noise])
    write_json(save_folder / RECORD, record)
    return prepared | {"noise": read_noise(prepared["noise"])}


def percentages_of(unknown, silence):
    """The percentages of the classes that are no words, by class."""
    return {UNKNOWN: unknown, SILENCE: silence}


def words_of(labels):
    """The classes that are words."""
    return [label for label in labels if label not in (UNKNOWN, SILENCE)]


def split_clips(root, clips, split, seed):
    """Split clips as `prepare_speechcommands` says.

    Returns
    -------
    splits : dict of str to list of Candidate
        Each in the order of the ids.
    listed : dict of str to str
        What list files name, which other speech goes by too.
    """
    known, listed = {path.name for path in word_folders(root)} | set(WORDS["0.02"]), {}
    if str(split) == "official":
        splits = assign(clips)
    elif str(split) == "auto":
        splits = split_by_folder(root, clips, known, seed)
        if has_lists(root):
            listed = read_entries(root, known)
    else:
        folder = root if str(split) == "lists" else Path(split).absolute()
        splits, listed = read_lists(folder, root, clips, known), read_entries(folder, known)
    for candidates in splits.values():
        candidates.sort(key=lambda one: one.id)
    return splits, listed


def manifest_paths(save_folder):
    """Where the manifests, the labels and the list of noise recordings are written."""
    paths = {name: Path(save_folder) / f"{name}.csv" for name in SPLITS}
    return paths | {name: Path(save_folder) / f"{name}.json" for name in ("labels", "noise")}


def read_noise(path):
    """The noise recordings of an earlier preparation as a list of Path; empty if there was none."""
    if not path.is_file():
        return []
    return [Path(name) for name in read_json(path)]


def check_options(version, percentages, clip_seconds, seed):
    """Refuse options out of range with a ValueError."""
    if version not in WORDS:
        raise ValueError(f"version must be one of {', '.join(WORDS)}, not {version!r}")
    for label, percentage in percentages.items():
        if not 0 <= percentage <= 100:
            name = f"{label.strip('_')}_percentage"
            raise ValueError(f"{name} must be between 0 and 100, not {percentage}")
    if clip_seconds is not None and not clip_seconds > 0:
        raise ValueError(f"clip_seconds must be above 0, or null, not {clip_seconds}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")


def check_other_options(folder, percentage, labels):
    """Refuse options of other speech that make no sense with a ValueError."""
    if not 0 <= percentage <= 1000:
        raise ValueError(f"other_speech_percentage must be between 0 and 1000, not {percentage}")
    if folder not in (None, AUTO) and not percentage:
        raise ValueError(
            f"other_speech {folder} is of no use while other_speech_percentage is 0: set it above 0"
        )
    if percentage and UNKNOWN not in labels:
        raise ValueError(
            f"other_speech_percentage {percentage} needs the class {UNKNOWN}: choose n_classes 12 "
            "or a list of words, with unknown_percentage above 0, or all"
        )


def fingerprint(splits, noise):
    """A hash that changes when a recording or a clip's split does."""
    digest = hashlib.sha256()
    for name, clips in splits.items():
        digest.update(name.encode() + b"".join(b"\n" + os.fsencode(clip.id) for clip in clips))
    clips = (clip.path for clips in splits.values() for clip in clips)
    digest.update(fingerprint_files([*clips, *noise]).encode())
    return digest.hexdigest()


def share(rows, percentage):
    """So many per cent of the clips of the words, rounded up."""
    return ceil(sum(row["label"] != UNKNOWN for row in rows) * percentage / 100)


def choose_unknown(rows, labels, percentages, random):
    """Keep the clips of the words, and of the others as many as `_unknown_` shall have."""
    known = [row for row in rows if row["label"] in labels]
    others = [row | {"label": UNKNOWN} for row in rows if row["label"] not in labels]
    if UNKNOWN not in labels:
        return known
    count = share(known, percentages[UNKNOWN])
    if count > len(others) > 0:
        logger.warning("only %d clips for the class %s, not %d", len(others), UNKNOWN, count)
    return known + [others[index] for index in sorted(random.permutation(len(others))[:count])]
