"""Finding the single-speaker recordings of a folder: the speakers, their files, and the sets.

Knows the layouts of LibriSpeech and VoxCeleb, and any other folder in which the first folder is the
speaker.
"""

import logging
import re
from pathlib import Path

from data_prep.inspection import CUT, HEADER, examine
from mamba_speech.audio.errors import NO_SAMPLES
from mamba_speech.audio.finding import PassedOver, walk_files

logger = logging.getLogger(__name__)

LAYOUTS = ("auto", "librispeech", "voxceleb", "flat")
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# What the parts of LibriSpeech begin with, for the splits of a mixture set.
SETS = {"train": "tr", "dev": "cv", "test": "tt"}


def find_speech(folder, layout="auto"):
    """List the recordings of a folder by set and speaker.

    Arguments
    ---------
    folder : str or Path
    layout : str
        `librispeech`: `[<set>/]<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`;
        `voxceleb`: `[wav/]id<number>/.../<file>`; `flat`: `<speaker>/.../<file>`; `auto`: that
        which fits more than half of the files, the last one if none does.

    Returns
    -------
    speech : dict of str to dict of str to list of str
        From `tr`, `cv`, `tt`, or the empty string where the folder tells no set, to the speakers
        and on to their recordings, relative to `folder`. Sorted throughout.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If it holds no recording in this layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the speech folder {folder} does not exist")
    files, passed = list_files(folder)
    if not files:
        other = f" (but {passed}: convert them first)" if passed.counts else ""
        raise ValueError(f"{folder} holds no {', '.join(SUFFIXES)} file{other}")
    passed.warn(folder)
    placed = {name: [PLACES[name](parts) for parts in files] for name in PLACES}
    if layout == "auto":
        fits = [name for name in PLACES if sum(map(bool, placed[name])) > len(files) / 2]
        layout = fits[0] if fits else "flat"
    speech, outside = {}, 0
    for parts, place in zip(files, placed[layout], strict=True):
        if place is None:
            outside += 1
            continue
        name, speaker = place
        speech.setdefault(name, {}).setdefault(speaker, []).append("/".join(parts))
    if not speech:
        raise ValueError(f"{folder} has no recording in the layout {layout}; try another --layout")
    if outside:
        logger.warning("%d files of %s do not fit the layout %s", outside, folder, layout)
    return {name: dict(sorted(speech[name].items())) for name in sorted(speech)}


def list_files(folder):
    """The recordings below a folder as tuples of path parts, sorted; and what was passed over.

    Folders whose names begin with an underscore, as of noise, hold no speakers.
    """
    passed = PassedOver()
    found = (path.relative_to(folder).parts for path in walk_files(folder, SUFFIXES, passed))
    return [parts for parts in found if not any(one[0] == "_" for one in parts[:-1])], passed


def place_librispeech(parts):
    """Set and speaker of a file in LibriSpeech's layout; None if it does not fit.

    Example
    -------
    >>> place_librispeech(("dev-clean", "84", "121123", "84-121123-0000.flac"))
    ('cv', '84')
    """
    if len(parts) < 3 or not parts[-1].startswith(f"{parts[-3]}-{parts[-2]}-"):
        return None
    kind = parts[-4].partition("-")[0] if len(parts) > 3 else ""
    return SETS.get(kind, ""), parts[-3]


def place_voxceleb(parts):
    """Set (none) and speaker of a file in VoxCeleb's layout; None if it does not fit."""
    speakers = [part for part in parts[:-1] if re.fullmatch(r"id\d+", part)]
    return ("", speakers[0]) if speakers else None


def place_flat(parts):
    """Set (none) and speaker of a file whose first folder is the speaker; None without folder."""
    return ("", parts[0]) if len(parts) > 1 else None


PLACES = {"librispeech": place_librispeech, "voxceleb": place_voxceleb, "flat": place_flat}


def fault_of(path, min_seconds):
    """Why a recording cannot be a source, by its header, or None if it can; and its length in seconds."""
    found = examine(path, HEADER)
    if found.reason == CUT:
        return "truncated", 0.0
    if found.reason not in (None, NO_SAMPLES):
        return "unreadable", 0.0
    if found.channels > 1:
        return f"with {found.channels} channels", 0.0
    if found.frames < min_seconds * found.rate or not found.frames:
        return f"shorter than {min_seconds:g} s", 0.0
    return None, found.frames / found.rate
