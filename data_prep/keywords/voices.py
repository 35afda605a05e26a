"""Who says a word, and which split each voice is in, for recordings of one's own.

A folder may say itself which clip is for what, by Speech Commands' lists or by a table `clips.csv`. Otherwise
voices are drawn, so that no voice is in two splits.
"""

import csv
import logging
from collections import defaultdict
from dataclasses import replace

import numpy as np

from data_prep.keywords.splits import (
    LISTS,
    SPLITS,
    clip_of,
    composed,
    find_listed,
    read_lists,
)

logger = logging.getLogger(__name__)

TABLE = "clips.csv"
PARTS = {
    "training": "train",
    "train": "train",
    "validation": "valid",
    "valid": "valid",
    "dev": "valid",
    "testing": "test",
    "test": "test",
}
# parts of the clips, as in Speech Commands
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
# most draws of voices (the most even one is taken), and the voices that all draws together may assign
DRAWS, ASSIGNMENTS = 100, 20000


def voice_of(path):
    """The voice of a clip: what stands before `_nohash_` in its name, else before the first `_`, else all of it.

    Example
    -------
    >>> from pathlib import Path
    >>> voice_of(Path("alexa/anna_3.flac")), voice_of(Path("alexa/anna_b_nohash_0.wav")), voice_of(Path("a/3.wav"))
    ('anna', 'anna_b', '3')
    """
    before, marked, _ = path.stem.partition("_nohash_")
    return before if marked else path.stem.partition("_")[0] or path.stem


def with_voices(clips):
    """The clips with the voices that their names tell; a warning counts the names that tell none."""
    untold = [clip for clip in clips if "_" not in clip.path.stem]
    if untold:
        logger.warning(
            "%d of %d recordings have no _ in their names (%s first), so their voices cannot be told apart: each "
            "counts as a voice of its own, and the test may hear voices of the training; name them <voice>_<number>",
            len(untold),
            len(clips),
            untold[0].path.name,
        )
    return [replace(clip, speaker=voice_of(clip.path)) for clip in clips]


def has_lists(root):
    """Whether a folder has Speech Commands' lists."""
    return all((root / LISTS[name]).is_file() for name in ("valid", "test"))


def says_splits(root):
    """Whether a folder says which of its clips are for what, by lists or by a table."""
    return has_lists(root) or read_table(root) is not None


def split_by_folder(root, clips, words, seed):
    """Split clips as their folder says, or else by a draw of voices.

    Arguments
    ---------
    root : Path
    clips : list of Candidate
    words : set of str
        What a line of a list may name.
    seed : int
        Of the draw.

    Returns
    -------
    splits : dict of str to list of Candidate

    Raises
    ------
    FileNotFoundError, ValueError
        If a list is wrong, or there are fewer than three clips to draw from.
    """
    clips = with_voices(clips)
    if has_lists(root):
        return read_lists(root, root, clips, words)
    table = read_table(root)
    if table is not None:
        return split_by_table(root, clips, table)
    if (root / TABLE).is_file():
        logger.warning(
            "%s is not used, since it lacks the column path or part: voices are drawn", root / TABLE
        )
    return draw_voices(clips, seed)


def read_table(root):
    """The table `clips.csv` of a folder: path to split and voice; None if there is no such table.

    Raises
    ------
    ValueError
        If it cannot be read as CSV, a part is unknown, or a path stands there twice.
    """
    path = root / TABLE
    if not path.is_file():
        return None
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            return _read_rows(csv.DictReader(file), path)
    except csv.Error as error:
        raise ValueError(f"{path}: no CSV ({error}); repair it, or take it away") from error


def _read_rows(reader, path):
    """The rows of a table; None if it lacks a column."""
    if not {"path", "part"} <= set(reader.fieldnames or ()):
        return None
    found = {}
    for row in reader:
        entry = composed((row["path"] or "").strip().replace("\\", "/"))
        part = (row["part"] or "").strip().lower()
        place = f"{path}, line {reader.line_num}"
        if part not in PARTS:
            raise ValueError(f"{place}: part {part!r} is none of training, validation and testing")
        if entry in found:
            raise ValueError(f"{place}: {entry} stands there twice")
        found[entry] = (PARTS[part], (row.get("voice") or "").strip())
    return found


def split_by_table(root, clips, table):
    """Split clips by a table; a clip that is not on it is left out, which a warning counts.

    Returns
    -------
    splits : dict of str to list of Candidate
        A clip that is on the table but not there is among them, for `verify` to skip and to list.
    """
    known = {composed(clip.path.relative_to(root).as_posix()): clip for clip in clips}
    words = {composed(clip.text) for clip in clips}
    meant = find_listed(table, known)
    splits = {name: [] for name in SPLITS}
    for entry, (name, voice) in table.items():
        if entry.partition("/")[0] in words:
            clip = known.get(meant.get(entry)) or clip_of(root / entry)
            splits[name].append(replace(clip, speaker=voice) if voice else clip)
    left = sorted(set(known) - set(meant.values()))
    if left:
        logger.warning(
            "%d clips are not on %s and left out, %s first", len(left), root / TABLE, left[0]
        )
    return splits


def draw_voices(clips, seed):
    """Split clips by a draw of voices, as evenly over the words as the voices allow.

    Of several draws the most even one is taken; a word that has clips is never without any in training. Fewer
    than three voices cannot be held apart, so recordings are drawn then, which a warning tells.

    Arguments
    ---------
    clips : list of Candidate
    seed : int

    Returns
    -------
    splits : dict of str to list of Candidate

    Raises
    ------
    ValueError
        If there are fewer than three clips.
    """
    if len(clips) < 3:
        raise ValueError(
            f"{len(clips)} recordings cannot be split into training, validation and test: record ten or more of each "
            "word"
        )
    random = np.random.default_rng([seed, 2])
    words = sorted({clip.text for clip in clips})
    voices = sorted({clip.speaker for clip in clips})
    single = [word for word in words if sum(clip.text == word for clip in clips) == 1]
    if single:
        logger.warning(
            "%s: a single recording, which trains, so that no test hears the word; record ten or more",
            ", ".join(single),
        )
    if len(voices) < 3:
        logger.warning(
            "%d %s cannot be held apart, so the split is by recordings: the test tells nothing of other voices",
            len(voices),
            "voices" if len(voices) > 1 else "voice",
        )
        return _draw_recordings(clips, words, random)
    row, column = ({name: number for number, name in enumerate(of)} for of in (voices, words))
    counts = np.zeros((len(voices), len(words)))
    for clip in clips:
        counts[row[clip.speaker], column[clip.text]] += 1
    draws = max(1, min(DRAWS, ASSIGNMENTS // len(voices)))
    chosen = min((_assign(counts, random) for _ in range(draws)), key=lambda one: one[0])[1]
    names = list(SHARES)
    splits = {name: [] for name in SPLITS}
    for clip in clips:
        splits[names[chosen[row[clip.speaker]]]].append(clip)
    logger.info(
        "voices drawn: %s",
        ", ".join(
            f"{len({clip.speaker for clip in own})} for {name}" for name, own in splits.items()
        ),
    )
    return splits


def _assign(counts, random):
    """Put voices into splits one by one, each where it is wanted most; the cost, and each voice's split."""
    total = counts.sum(0)
    wanted = np.array(list(SHARES.values()))[:, None] * total  # (splits, words)
    have = np.zeros_like(wanted)
    chosen = np.zeros(len(counts), dtype=int)
    # a voice each for test and validation, then great voices first, since small ones fit anywhere
    held = random.permutation(len(counts))[:2]
    chosen[held] = 2, 1
    for voice in held:
        have[chosen[voice]] += counts[voice]
    for voice in np.argsort(-counts.sum(1), kind="stable"):
        if voice in held:
            continue
        trial = have[:, None, :] + np.eye(len(SHARES))[:, :, None] * counts[voice]
        costs = (np.square(trial - wanted[:, None]) / np.maximum(total, 1)).sum((0, 2))
        chosen[voice] = int(np.argmin(costs))
        have[chosen[voice]] += counts[voice]
    missing = (have == 0).sum(1)
    cost = (np.square(have - wanted) / np.maximum(total, 1)).sum()
    return (missing[0], missing[2], missing[1], cost), chosen


def _draw_recordings(clips, words, random):
    """Split each word's recordings: a tenth for validation and test each, one of each if there are three."""
    splits = {name: [] for name in SPLITS}
    of_word = defaultdict(list)
    for clip in clips:
        of_word[clip.text].append(clip)
    for word in words:
        own = [of_word[word][index] for index in random.permutation(len(of_word[word]))]
        held = max(1, round(SHARES["test"] * len(own))) if len(own) > 1 else 0
        also = held if len(own) > 2 else 0
        splits["test"] += own[:held]
        splits["valid"] += own[held : held + also]
        splits["train"] += own[held + also :]
    return splits
