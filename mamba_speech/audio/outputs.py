"""Names of the files that are made of recordings: the tree of the recordings, and no name twice.

A name depends on the recording, on the files beside it, and on the folder that holds all inputs. It does not depend on
the order of the inputs, nor on the disk that is written to, which may not tell ``A`` from ``a``.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from pathlib import Path

from mamba_speech.audio.finding import AUDIO, MEDIA, find_audio, is_folder, list_files
from mamba_speech.audio.names import is_utf8

# Bytes of a name that leave room for endings: file systems take 255.
LONGEST_STEM = 215


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
        plan[path] = _below(Path(folder), root) / _shortened(stems[folder][name] or "input")
    return _told_apart(plan)


def distinct_stems(names, plain=()):
    """Stems of files of one folder, with the ending where two would be the same.

    Arguments
    ---------
    names : iterable of str
    plain : tuple of str
        Endings that never stay, in lower case. By default every ending may.

    Returns
    -------
    stems : dict of str to str

    Example
    -------
    >>> distinct_stems(["a.wav", "a.flac", "b.wav"])
    {'a.wav': 'a.wav', 'a.flac': 'a.flac', 'b.wav': 'b'}
    >>> distinct_stems(["a.wav", "a.flac"], (".wav",))
    {'a.wav': 'a', 'a.flac': 'a.flac'}
    """
    stems = {name: os.path.splitext(name)[0] for name in names}
    kept = {name for name in stems if name.lower().endswith(plain)}
    # a whole name may be another's stem: a.wav and a.wav.flac
    while again := [name for name in _taken_twice(stems) if stems[name] != name not in kept]:
        stems |= {name: name for name in again}
    twice = _taken_twice(stems)
    marked = [name for name in twice if name not in kept] or twice
    return stems | {name: f"{stems[name]}~{_mark(name)}" for name in marked}


def _stems_in(folder, names):
    return distinct_stems(names | {path.name for path in list_files(folder, AUDIO | MEDIA)})


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


def _shortened(stem):
    """A stem to which an ending can be added: of a long one the beginning, and a mark of the whole."""
    whole = os.fsencode(stem)
    if len(whole) <= LONGEST_STEM:
        return stem
    # no letter of several bytes is cut apart
    short = whole[: LONGEST_STEM - 7].decode(
        "utf-8", "ignore" if is_utf8(stem) else "surrogateescape"
    )
    return f"{short}~{_mark(stem)}"


def _told_apart(plan):
    """The plan, with a mark of its own on every name that some disk would take for another's."""
    twice = _taken_twice(plan)
    return plan | {
        path: plan[path].with_name(f"{plan[path].name}~{_mark(plan[path])}") for path in twice
    }


def _taken_twice(names):
    """The keys whose values some disk would take for another's."""
    counts = Counter(map(_folded, names.values()))
    return [key for key, name in names.items() if counts[_folded(name)] > 1]


def _folded(name):
    """What names have in common that some disks take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(name)).casefold())


def _mark(name):
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:6]
