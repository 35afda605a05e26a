"""Telling whether files have changed since an earlier run: by their names, sizes and times of change.

Nothing is read. For 100,000 files that takes less than half a second on a local disk.
A file that was touched without a change counts as changed.
"""

import hashlib
import os

from mamba_speech.files import read_json


def stamp(path):
    """Size and time of change of a file.

    Arguments
    ---------
    path : str or Path
        Links are followed.

    Returns
    -------
    stamp : str
        Bytes and nanoseconds with a space between them; empty where there is no such file.

    Example
    -------
    >>> stamp("nowhere.wav")
    ''
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def fingerprint(paths):
    """A hash that changes when a file comes, goes, or gets another size or time of change.

    Arguments
    ---------
    paths : iterable of str or Path
        In an order that does not change by itself.

    Returns
    -------
    digest : str

    Example
    -------
    >>> fingerprint(["nowhere.wav"]) == fingerprint(["nowhere.wav"]) != fingerprint([])
    True
    """
    digest = hashlib.sha256()
    for path in paths:
        # a name need not be text
        digest.update(os.fsencode(path) + f"\n{stamp(path)}\n".encode())
    return digest.hexdigest()


def read_note(path):
    """What an earlier run noted as a JSON object; nothing where it noted none, or where the note is damaged."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def changed_since(before, now):
    """Which files have changed since they were noted.

    Arguments
    ---------
    before, now : dict of str to str
        Stamps by the name of the file.

    Returns
    -------
    changed : set of str
        Names in both whose stamp differs. A file that was not noted before is not among them.

    Example
    -------
    >>> changed_since({"a": "3 1", "b": "5 1"}, {"a": "3 2", "b": "5 1", "c": "4 1"})
    {'a'}
    """
    return {name for name, one in now.items() if before.get(name, one) != one}
