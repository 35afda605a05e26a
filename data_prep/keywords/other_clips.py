"""Clips to test a trained model on that are no part of its corpus: other people's, or another room's.

Only the test is prepared: the folder needs no training split, no lists and not every word.
"""

import csv
import logging
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.keywords.backgrounds import COMPUTED, list_noise
from data_prep.keywords.clips import (
    COLUMNS,
    OTHER_SPEECH,
    SILENCE,
    UNKNOWN,
    check_clips,
    check_noise,
    crop_silence,
)
from data_prep.keywords.other_speech import (
    check_other_speech,
    crop_other_speech,
    list_other_speech,
)
from data_prep.keywords.splits import composed
from data_prep.keywords.spoken_speech import AUTO, SPOKEN
from data_prep.keywords.voices import says_splits, with_voices
from data_prep.keywords.words import find_root, list_audio, list_clips, word_folders
from data_prep.speechcommands_prepare import choose_unknown, share, split_clips
from data_prep.verify import FULL
from mamba_speech.files import write_csv, write_json

logger = logging.getLogger(__name__)


def prepare_other_clips(
    data_folder,
    save_folder,
    labels,
    version="0.02",
    split="auto",
    unknown_percentage=10,
    silence_percentage=10,
    clip_seconds=1.0,
    seed=1234,
    other_speech=None,
    other_speech_percentage=0,
    background=None,
    trained=(),
    skip_prep=False,
    verify=FULL,
):
    """Write `test.csv` of clips that a model was not trained on.

    Clips are those that the folder's lists or names mean for a test, and all of them where that is none. A word that
    the model does not know is `_unknown_`, if the model has that class, and left out otherwise.

    Arguments
    ---------
    data_folder, version, split, unknown_percentage, silence_percentage, clip_seconds, seed, verify
        See `data_prep.speechcommands_prepare.prepare_speechcommands`.
    save_folder : str or Path
        Where the manifest goes.
    labels : list of str
        The classes of the model.
    other_speech, background : str or Path, optional
        Folders; what would be spoken or computed is left out of such a test.
    trained : iterable of Path
        Manifests of the clips that the model was trained and validated on, which are no test.
    skip_prep : bool
        Return at once.

    Returns
    -------
    prepared : dict
        Paths of `test` and `labels`, and `noise`, which is empty.

    Raises
    ------
    FileNotFoundError, ValueError
        If no clip is there, or none is usable.
    """
    save_folder = Path(save_folder)
    prepared = {"test": save_folder / "test.csv", "labels": save_folder / "labels.json"}
    if skip_prep:
        return prepared | {"noise": []}
    root = find_root(data_folder, version)
    clips = _known_clips(root, labels)
    candidates = _for_test(root, clips, split, seed)
    candidates = _without_trained(candidates, trained)
    save_folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, zlib.crc32(b"test")])
    rows, _ = check_clips(candidates, "test", save_folder, set(), clip_seconds, verify)
    percentages = {UNKNOWN: unknown_percentage, SILENCE: silence_percentage}
    rows = choose_unknown(rows, labels, percentages, random)
    if not rows:
        raise ValueError(f"{root} has no clip of {', '.join(labels)}: give a folder of these words")
    seconds = clip_seconds or 1.0
    pieces = []
    if UNKNOWN in labels and other_speech_percentage:
        folder = None if str(other_speech) in (AUTO, SPOKEN) else other_speech
        if folder is not None or (root / OTHER_SPEECH).is_dir():
            recordings = list_other_speech(root, folder, labels)
            found, _ = check_other_speech({"test": recordings}, save_folder, seconds, verify)
            count = share(rows, other_speech_percentage)
            own = np.random.default_rng([seed, zlib.crc32(b"test"), 1])
            pieces = crop_other_speech(found["test"], "test", count, seconds, own)
    if SILENCE in labels and silence_percentage:
        folder = None if str(background) == COMPUTED else background
        noise = list_noise(root, folder, labels, save_folder, seed)
        noise, _ = check_noise(noise, save_folder, seconds, verify) if noise else ([], 0)
        count = share(rows, silence_percentage) if noise else 0
        rows += crop_silence(noise, "test", count, seconds, random) if noise else []
    rows += pieces
    absent = [label for label in labels if label not in {row["label"] for row in rows}]
    if absent:
        logger.info("the test has no clip of %s", ", ".join(absent))
    write_csv(prepared["test"], COLUMNS, rows)
    write_json(prepared["labels"], labels)
    return prepared | {"noise": []}


def _known_clips(root, labels):
    """The clips of the words that the model knows, under its names, and of the others where it has a class for them."""
    words = {composed(label).casefold(): label for label in labels}
    folders = [folder.name for folder in word_folders(root) if list_audio(folder)]
    names = {name: words.get(composed(name).casefold()) for name in folders}
    known = [name for name, label in names.items() if label]
    if not known:
        raise FileNotFoundError(
            f"{root} has none of the model's words ({', '.join(labels)}): give a folder of them"
        )
    others = [name for name, label in names.items() if not label]
    if others and UNKNOWN not in labels:
        logger.warning("no words of the model, and left out: %s", ", ".join(others))
    clips = list_clips(root, [*known, UNKNOWN] if UNKNOWN in labels else known)
    return [replace(clip, text=names.get(clip.text) or clip.text) for clip in clips]


def _for_test(root, clips, split, seed):
    """The clips that the folder's lists, its table or the hash mean for a test; all of them where that is none."""
    splits = {}
    if str(split) != "auto" or says_splits(root):
        splits, _ = split_clips(root, clips, split, seed)
    chosen = splits.get("test")
    if chosen:
        logger.info("%s: %d of %d clips are for a test", root, len(chosen), len(clips))
        return chosen
    logger.info("%s names no clips for a test: all %d are tested", root, len(clips))
    return sorted(with_voices(clips), key=lambda one: one.id)


def _without_trained(candidates, manifests):
    """Leave out clips that trained the model; a warning tells of voices with the names of such voices."""
    files, voices = set(), set()
    for manifest in manifests:
        if Path(manifest).is_file():
            with open(manifest, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    files.add(os.path.realpath(row["wav"]))
                    voices.add(row["speaker"])
    free = [one for one in candidates if os.path.realpath(one.path) not in files]
    if len(free) < len(candidates):
        logger.warning(
            "%d clips trained this model, and are not tested", len(candidates) - len(free)
        )
    if candidates and not free:
        raise ValueError(
            "every clip of data_folder trained this model: give other clips for a test"
        )
    shared = {one.speaker for one in free} & voices
    if shared:
        logger.warning(
            "%d voices of the test have names of voices that trained the model (%s first): if they are the same "
            "people, the figure tells nothing of others",
            len(shared),
            min(shared),
        )
    return free
