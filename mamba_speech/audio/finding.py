"""Finding the audio files that a user, a list or a folder means.

One walk serves the commands and the preparation of every corpus, so that none of them finds what another does not.
"""

import errno
import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import soundfile

from mamba_speech.audio.errors import AudioError
from mamba_speech.audio.media_formats import SUFFIXES as MEDIA
from mamba_speech.audio.media_formats import has_decoder
from mamba_speech.audio.names import plain, printable

logger = logging.getLogger(__name__)

# folders of copies, notes and waste that systems make beside a user's files
NO_DATA = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
# what libsndfile reads under more names than its formats have; headerless .raw says nothing of itself
AUDIO = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
AUDIO |= {".aif", ".oga", ".opus", ".sph", ".wv1"}
# files of each kind that a warning names
MOST_NAMED = 3


class PassedOver:
    """What a walk through a folder meets and cannot take: counted by kind, the first of each kind named.

    Example
    -------
    >>> passed = PassedOver()
    >>> passed.add("link to nothing", "top/a.wav")
    >>> passed.add("link to nothing", "top/b.wav")
    >>> str(passed)
    '2 links to nothing (top/a.wav, top/b.wav)'
    """

    def __init__(self):
        self.counts, self.named = Counter(), {}

    def add(self, kind, path):
        """Count a path under its kind, a phrase that begins with a noun in the singular."""
        self.counts[kind] += 1
        named = self.named.setdefault(kind, [])
        if len(named) < MOST_NAMED:
            named.append(os.fspath(path))

    def warn(self, folder):
        """Log one warning, if there is anything to tell of a folder."""
        if self.counts:
            logger.warning("%s: passed over: %s", _shown(folder), self)

    def __str__(self):
        return ", ".join(self._of(kind) for kind in self.counts)

    def _of(self, kind):
        named, more = self.named[kind], self.counts[kind] - len(self.named[kind])
        names = ", ".join(map(_shown, named)) + (f" and {more} more" if more else "")
        noun, space, rest = kind.partition(" ")
        noun += "s" if self.counts[kind] > 1 else ""
        return f"{self.counts[kind]} {noun}{space}{rest} ({names})"


def _shown(path):
    return plain(printable(os.fspath(path)), backslashes=False)


def walk_files(folder, suffixes, passed=None, hidden="."):
    """The files of a folder at any depth, sorted; see :func:`walk_folders`.

    Arguments
    ---------
    folder : str or Path
    suffixes : iterable of str
        Endings of the files that are wanted, in lower case: ``.wav``, or longer ones such as ``.trans.txt``.
    passed : PassedOver, optional
        Told what is passed over. By default one warning tells it.
    hidden : str
        See :func:`walk_folders`.

    Returns
    -------
    files : list of Path
        Folder by folder and name by name. A file that has two names is found twice.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.wav", "._b.wav", "a.txt"):
    ...     _ = (folder / name).write_bytes(b"")
    >>> (folder / "loop").symlink_to(folder)
    >>> [path.name for path in walk_files(folder, [".wav"])]
    ['b.wav']
    """
    told = PassedOver() if passed is None else passed
    found = [
        os.path.join(place, name)
        for place, names in walk_folders(folder, suffixes, told, hidden)
        for name in names
    ]
    if passed is None:
        told.warn(folder)
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def walk_folders(folder, suffixes, passed, hidden="."):
    """Each folder of a tree that holds wanted files, and their names; both sorted.

    Links are followed. A link to a folder above itself, which would never end, is passed over. A folder that two links
    lead to is entered through both, since a corpus may be put together from links.

    Arguments
    ---------
    folder : str or Path
    suffixes : iterable of str
        See :func:`walk_files`.
    passed : PassedOver
        Told of links that lead nowhere or in a circle, pipes and the like, folders that cannot be read, and audio of
        other endings.
    hidden : str
        Letters that the names of what is no data begin with. The names that systems give to such folders, as
        ``__MACOSX``, are no data either.

    Yields
    ------
    place : str
    names : list of str
        As they are on the disk. A byte that is not UTF-8 is a lone surrogate, as Python has it.
    """
    suffixes = tuple(suffixes)
    root = os.fspath(folder)
    above = Path(os.path.realpath(root)).parents
    waiting = [(root, frozenset(filter(None, map(_identity, above))))]
    while waiting:
        place, above = waiting.pop()
        identity = _identity(place)
        if identity in above:
            passed.add("link to a folder above it", place)
            continue
        names, below = _look_into(place, suffixes, passed, hidden)
        if names:
            yield place, names
        waiting += [(one, above | {identity}) for one in reversed(below)]


def list_files(folder, suffixes, passed=None, hidden="."):
    """The files directly in a folder, sorted; see :func:`walk_files`.

    Arguments
    ---------
    folder, suffixes, passed, hidden
        See :func:`walk_folders`. Without ``passed``, nothing is told.

    Returns
    -------
    files : list of Path
        None if the folder is not there.
    """
    if not os.path.isdir(folder):
        return []
    told = PassedOver() if passed is None else passed
    names, _ = _look_into(os.fspath(folder), tuple(suffixes), told, hidden)
    return [Path(folder, name) for name in names]


def list_folders(folder, hidden="."):
    """The folders directly in a folder, links to folders included, sorted.

    Arguments
    ---------
    folder : str or Path
    hidden : str
        See :func:`walk_folders`.

    Returns
    -------
    folders : list of Path
        None if the folder is not there.
    """
    if not os.path.isdir(folder):
        return []
    _, below = _look_into(os.fspath(folder), (), PassedOver(), hidden)
    return [Path(one) for one in below]


def _look_into(place, suffixes, passed, hidden):
    """The names of the wanted files of a folder, and the paths of the folders in it, sorted."""
    names, below = [], []
    try:
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        passed.add(f"folder that cannot be read ({error.strerror.lower()})", place)
        return names, below
    for entry in found:
        if entry.name[0] in hidden:
            continue
        kind = _kind(entry)
        if kind == "folder":
            if entry.name not in NO_DATA:
                below.append(entry.path)
        elif kind != "file":
            passed.add(kind, entry.path)
        elif entry.name.lower().endswith(suffixes):
            names.append(entry.name)
        else:
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in MEDIA and ".wav" in suffixes and not has_decoder():
                passed.add("file that only ffmpeg or the package av reads", entry.path)
            elif suffix in AUDIO | MEDIA and suffixes:
                passed.add(f"file with the ending {suffix}", entry.path)
    return names, below


def _kind(entry):
    """`file`, `folder`, or a description of what else has a name in a folder."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return special_kind(entry.stat().st_mode)
    except FileNotFoundError:
        return "link to nothing"
    except OSError as error:
        circle = error.errno == errno.ELOOP
        return (
            "link in a circle"
            if circle
            else f"name that cannot be followed ({error.strerror.lower()})"
        )


def special_kind(mode):
    """What a path that is neither a file nor a folder leads to.

    Example
    -------
    >>> special_kind(stat.S_IFIFO)
    'pipe'
    """
    kinds = ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return next((kind for test, kind in kinds if test(mode)), "device")


def _identity(path):
    """What two paths to one folder have in common; None if it cannot be told."""
    with suppress(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None


def audio_suffixes():
    """Endings of the files that can be read here: of media too where there is a decoder."""
    return AUDIO | MEDIA if has_decoder() else AUDIO


def find_audio(paths):
    """The given files, and the audio files under the given folders, sorted within each folder.

    Arguments
    ---------
    paths : iterable of str or Path

    Returns
    -------
    files : list of Path
        A folder without audio stands for itself, so that reading it tells so. A file that is not there may be found
        under another spelling; see :func:`find_named`.
    """
    files = []
    for path in map(Path, paths):
        if is_folder(path):
            files += walk_files(path, audio_suffixes()) or [path]
            continue
        with suppress(AudioError):
            path = find_named(path)
        files.append(path)
    return files


def find_named(path, folder=""):
    """The file that a list means by a path.

    A path that leads nowhere as it is written may be spelt in another way on this disk. Letters with accents are one
    code point or several, and Windows writes ``\\`` between folders.

    Arguments
    ---------
    path : str or Path
    folder : str or Path
        Folder that the path is relative to.

    Returns
    -------
    Path
        Something is there; whether it is a file, :func:`check_file` tells.

    Raises
    ------
    AudioError
        If there is no such file; the message tells what was tried.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "clips").mkdir()
    >>> _ = (folder / "clips" / "caf\\u00e9.wav").write_bytes(b"")
    >>> find_named("clips\\\\cafe\\u0301.wav", folder).name
    'café.wav'
    """
    path = os.fspath(path)
    if not path:
        raise AudioError("an empty path names no file")
    whole = os.path.join(folder, path)
    if _is_there(whole):
        return Path(whole)
    if os.sep == "/" and re.match(r"[A-Za-z]:[\\/]|\\\\", path):
        raise AudioError(
            f"{path}: a path of Windows, with a drive that is not here; write it relative to its list"
        )
    tried, forms = [], [whole]
    if not whole.isascii():
        tried.append("its accents as one code point and as two")
    if os.sep == "/" and "\\" in path:
        forms.append(os.path.join(folder, path.replace("\\", "/")))
        tried.append("/ in place of \\")
    for form in forms:
        found = _find_spelt(form)
        if found is not None:
            return Path(found)
    said = f" (tried also {' and '.join(tried)})" if tried else ""
    raise AudioError(f"{whole}: no such file{said}")


def _find_spelt(path):
    """A path with each of its parts as it is spelt on the disk; None if one is not there."""
    if path.isascii():
        return path if _is_there(path) else None
    found, rest = ("/", path[1:]) if path.startswith("/") else ("", path)
    for part in rest.split(os.sep):
        spellings = dict.fromkeys(
            (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        )
        places = (os.path.join(found, one) for one in spellings)
        place = next((one for one in places if _is_there(one)), None)
        if place is None and not part.isascii():
            with suppress(OSError):
                folder = found or "."
                names = _composed_names(folder, os.stat(folder).st_mtime_ns)
                name = names.get(unicodedata.normalize("NFC", part))
                place = name and os.path.join(found, name)
        if place is None:
            return None
        found = place
    return found


@lru_cache(4)
def _composed_names(folder, _changed):
    """The names of a folder by their composed form; names in which some accents are composed and some are not."""
    return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}


def _is_there(path):
    with suppress(OSError, ValueError):
        return os.path.lexists(path)
    return False


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
    """Refuse what is no file, and a file in which nothing can be.

    Arguments
    ---------
    path : str or Path

    Raises
    ------
    AudioError
        If it is not there, is empty, may not be read, or is a link to nothing, a pipe, a socket, a device, or a folder
        in which :func:`find_audio` finds no audio.
    """
    if not os.fspath(path):
        raise AudioError("an empty path names no file")
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: {_why_missing(path, error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path}: a folder in which there is no audio file")
    if not stat.S_ISREG(status.st_mode):
        kind = special_kind(status.st_mode)
        raise AudioError(f"{path}: a {kind}, and no file; write what it gives into a file first")
    if status.st_size == 0:
        raise AudioError(f"{path}: an empty file")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path}: must not be read by this user; change its permissions")


def _why_missing(path, error):
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        reason = getattr(error, "strerror", None) or str(error)
        return reason[:1].lower() + reason[1:]
    if os.path.islink(path):
        return "a link to a file that is not there"
    try:
        find_named(path)
    except AudioError as fault:
        return str(fault).removeprefix(f"{path}: ")
    return "no such file"
