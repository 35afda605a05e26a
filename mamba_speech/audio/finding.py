"""Finding the audio files that a user means."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import soundfile

from mamba_speech.audio.errors import AudioError


def find_audio(paths):
    """The given files, and the audio files under the given folders, sorted within each folder.

    Arguments
    ---------
    paths : iterable of str or Path

    Returns
    -------
    files : list of Path
        A folder without audio stands for itself, so that reading it tells so.
    """
    suffixes = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
    suffixes |= {".aif", ".oga", ".opus"}
    files = []
    for path in map(Path, paths):
        if not is_folder(path):
            files.append(path)
            continue
        # names that begin with a dot are other systems' notes about a file
        found = (one for one in path.rglob("[!.]*") if one.suffix.lower() in suffixes)
        files += sorted(one for one in found if one.is_file()) or [path]
    return files


def is_folder(path):
    """Whether a path leads to a folder; False for what cannot be a path at all.

    Example
    -------
    >>> is_folder("."), is_folder("x" * 10000)
    (True, False)
    """
    with suppress(OSError, ValueError):
        return stat.S_ISDIR(os.stat(path).st_mode)
    return False


def check_file(path):
    """Refuse what is no file.

    Arguments
    ---------
    path : str or Path

    Raises
    ------
    AudioError
        If it is not there, or is a pipe, a device, or a folder in which :func:`find_audio` finds no audio.
    """
    if not os.fspath(path):
        raise AudioError("an empty path names no file")
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = getattr(error, "strerror", None) or str(error)
        reason = "no such file" if missing else reason[:1].lower() + reason[1:]
        raise AudioError(f"{path}: {reason}") from error
    if stat.S_ISDIR(mode):
        raise AudioError(f"{path}: a folder in which there is no audio file")
    if not stat.S_ISREG(mode):
        raise AudioError(f"{path}: a pipe or a device, and no file; write it into a file first")
