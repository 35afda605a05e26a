"""What a stream is made of: the clips of a part, other speech by other voices, and noise.

Every part of a corpus has its own voices, its own background speakers and its own noise recordings, so that thresholds
chosen on validation have never heard the test.
"""

import logging
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from data_prep.inspection import HEADER, examine
from data_prep.keywords.other_speech import without_words
from data_prep.keywords.voices import split_by_folder
from data_prep.keywords.words import all_words, find_root, list_clips
from data_prep.mixtures.speech import SUFFIXES, find_speech
from mamba_speech.audio.finding import walk_files

logger = logging.getLogger(__name__)

# What the parts are called here, in a keyword corpus, and by `find_speech`.
PARTS = ("validation", "testing")
SPLITS = {"validation": "valid", "testing": "test"}
SETS = {"validation": "cv", "testing": "tt"}
SHORTEST = 0.3


@dataclass(frozen=True)
class Piece:
    """A recording that goes into a stream: who speaks there, and which word it is, if it is one."""

    path: Path
    speaker: str
    word: str | None = None


def clips_of(folder, part, seed, version="0.02"):
    """The clips of a part of a keyword corpus.

    The folder's lists or its `clips.csv` say which clip is in which part. Without them voices are drawn, as training
    with the same seed draws them.

    Arguments
    ---------
    folder : str or Path
        `<word>/<voice>_<anything>.wav`, or another audio format.
    part : str
        A name of `PARTS`.
    seed : int
        Of the draw of voices; `data_seed` of the training.
    version : str
        Of Speech Commands, where the folder holds its archive.

    Returns
    -------
    clips : list of Piece

    Raises
    ------
    FileNotFoundError, ValueError
        If there are no word folders, or no clip is in the part.
    """
    root = find_root(folder, version)
    words = all_words(root)
    clips = split_by_folder(root, list_clips(root, words), set(words), seed)[SPLITS[part]]
    if not clips:
        raise ValueError(f"{folder}: no clip is in {part}: record the words with more voices")
    return [Piece(clip.path, clip.speaker, clip.text) for clip in clips]


def speech_of(folders, part, words):
    """Recordings of other speech for a part, without the words.

    Where a folder has sets as LibriSpeech has, validation takes the dev sets and testing the test sets. In any other
    folder the speakers are halved, so that both parts have about equally much.

    Arguments
    ---------
    folders : list of str or Path
        See :func:`data_prep.mixtures.speech.find_speech`; each has at least two speakers.
    part : str
        A name of `PARTS`.
    words : list of str
        Recordings in whose transcript or name one of them stands are left out.

    Returns
    -------
    speech : list of Piece

    Raises
    ------
    FileNotFoundError, ValueError
        If a folder holds no recording of single speakers, or only one speaker.
    """
    found = []
    for folder in map(Path, folders):
        sets = find_speech(folder)
        if all(sets.get(name) for name in SETS.values()):
            speakers = sets[SETS[part]]
        else:
            speakers = _half(folder, sets, part)
        files = {folder / name: who for who, names in speakers.items() for name in names}
        free = set(without_words(list(files), folder, words))
        found += [Piece(path, who) for path, who in files.items() if path in free]
    if not found:
        raise ValueError(f"no background speech without the words is left for {part}")
    return found


def _half(folder, sets, part):
    """The speakers of one of two halves that are about equally long."""
    speakers = defaultdict(list)
    for own in sets.values():
        for who, names in own.items():
            speakers[who] += names
    if len(speakers) < 2:
        raise ValueError(
            f"{folder}: its recordings are of one speaker, but validation and testing need one each; lay recordings "
            "out as <speaker>/<file>"
        )
    seconds = {
        who: sum(seconds_of(folder / name) for name in names) for who, names in speakers.items()
    }
    halves = {name: [] for name in reversed(PARTS)}
    for who in sorted(speakers, key=lambda one: (-seconds[one], one)):
        shorter = min(halves, key=lambda name: sum(seconds[one] for one in halves[name]))
        halves[shorter].append(who)
    return {who: speakers[who] for who in sorted(halves[part])}


def seconds_of(path):
    """Duration by a recording's header; 0 if it tells none."""
    found = examine(path, HEADER)
    return found.frames / found.rate if found.reason is None and found.rate else 0.0


def noise_of(folder, part):
    """The noise recordings of a part.

    Where names begin with a fold, as in ESC-10 (`1-17367-A.flac`), the first fold is left for training, the second is
    for validation, the third for testing, and so on; names without a fold are left for training. Where there are fewer
    than three folds, sources are dealt out so, a source being what stands before the last `-` of a name.

    Arguments
    ---------
    folder : str or Path
    part : str
        A name of `PARTS`.

    Returns
    -------
    noise : list of Path

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no folder, or it holds too few recordings for three parts.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("1-a", "2-b", "3-c", "3-d"):
    ...     Path(folder.name, f"{name}.wav").touch()
    >>> [path.stem for path in noise_of(folder.name, "testing")]
    ['3-c', '3-d']
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"the noise folder {folder} does not exist")
    groups = defaultdict(list)
    paths = sorted(walk_files(Path(folder), SUFFIXES))
    folds = {path: found[1] for path in paths if (found := re.match(r"(\d+)-", path.name))}
    for path in paths:
        if len(set(folds.values())) < len(PARTS) + 1:
            groups[path.stem.rpartition("-")[0] or path.stem].append(path)
        elif path in folds:
            groups[folds[path]].append(path)
    names = sorted(groups)[1 + PARTS.index(part) :: len(PARTS) + 1]
    if not names:
        raise ValueError(f"{folder}: {len(paths)} recordings are too few for three parts of noise")
    return [path for name in names for path in groups[name]]
