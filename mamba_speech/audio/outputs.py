"""Names of the files that are made of recordings: the tree of the recordings, and no name twice.

A name depends on the recording, on the files beside it, and on the folder that holds all inputs. It does not depend on
the order of the inputs, nor on the disk that is written to, which may not tell ``A`` from ``a``.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from pathlib import Path

from mamba_speech.audio.finding import AUDIO, find_audio, is_folder, list_files


def plan_names(inputs):
    """Which recordings are worked on, and under which name below the output folder each result goes.

    Arguments
    ---------
    inputs : iterable of str or Path
        Files, and folders to search.

    Returns
    -------
    plan : dict of Path to Path
        From each recording to a relative path without an ending: the recording's own below the innermost folder that
        holds all inputs. Where another audio file beside it differs in the ending alone, the ending stays.

    Example
    -------
    >>> [name.as_posix() for name in plan_names(["a/x.wav", "b/x.wav", "b/y.flac"]).values()]
    ['a/x', 'b/x', 'b/y']
    """
    inputs = [os.fspath(one) for one in inputs]
    root = _common_folder(inputs)
    # a recording that is given twice is worked on once
    places = {os.path.abspath(path): path for path in reversed(find_audio(inputs))}
    given = {}
    for folder, name in map(os.path.split, places):
        given.setdefault(folder, set()).add(name)
    stems = {folder: _stems_in(folder, names) for folder, names in given.items()}
    plan = {}
    for place, path in reversed(places.items()):
        folder, name = os.path.split(place)
        # the root of a disk has no name
        plan[path] = _below(Path(folder), root) / (stems[folder][name] or "input")
    return _told_apart(plan)


def distinct_stems(names):
    """Stems of files of one folder, with the ending where two would be the same.

    Arguments
    ---------
    names : iterable of str

    Returns
    -------
    stems : dict of str to str

    Example
    -------
    >>> distinct_stems(["a.wav", "a.flac", "b.wav"])
    {'a.wav': 'a.wav', 'a.flac': 'a.flac', 'b.wav': 'b'}
    """
    stems = {name: os.path.splitext(name)[0] for name in names}
    while True:
        counts = Counter(map(_folded, stems.values()))
        again = [name for name, stem in stems.items() if counts[_folded(stem)] > 1 and stem != name]
        if not again:
            return stems
        # a whole name may be another's stem: a.wav and a.wav.flac
        stems |= {name: name for name in again}


def _stems_in(folder, names):
    return distinct_stems(names | {path.name for path in list_files(folder, AUDIO)})


def _common_folder(inputs):
    """The innermost folder that holds all inputs; None where they lie on several drives."""
    tops = (one if is_folder(one) else os.path.dirname(os.path.abspath(one)) for one in inputs)
    try:
        return os.path.commonpath([os.path.abspath(top) for top in tops])
    except ValueError:
        return None


def _below(folder, root):
    if root is not None:
        # a folder without audio stands for itself, and may be the root
        below = os.path.relpath(folder, root)
        return Path() if below.startswith("..") else Path(below)
    return Path(folder.drive.strip("\\/:") or "drive", *folder.parts[1:])


def _told_apart(plan):
    """The plan, with a mark of its own on every name that some disk would take for another's."""
    counts = Counter(_folded(str(name)) for name in plan.values())
    return {
        path: name.with_name(f"{name.name}~{_mark(name.parent / path.name)}")
        if counts[_folded(str(name))] > 1
        else name
        for path, name in plan.items()
    }


def _folded(name):
    """What names have in common that some disks take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _mark(name):
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:6]
