"""The folder of built kernels: a library is kept beside its checksum, and loaded from a private copy.

Anything may happen to a file in a shared folder: a killed build, a full disk, a second process that builds, another
user. So a library counts only together with ``NAME.sum``, its size and hash, which is written last. Its bytes
are read once, checked, and loaded from memory, where nobody changes them. A library that others can
write is not loaded at all.
"""

import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows: two processes may build at once there
    fcntl = None

logger = logging.getLogger(__name__)

# a library has a tenth of a megabyte; a build needs a few for a moment
_MOST_BYTES, _ROOM_BYTES = 64 << 20, 16 << 20
_LEFTOVER = ".tmp"


def folders():
    """Folders that may keep built kernels, best first.

    Returns
    -------
    list of pathlib.Path
        ``$MAMBA_SPEECH_CACHE`` where it is set, ``~/.cache/mamba-speech``, and a folder of this user under
        the temporary one.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    chosen = os.environ.get("MAMBA_SPEECH_CACHE")
    names = [chosen, "~/.cache/mamba-speech", f"{tempfile.gettempdir()}/mamba-speech-{user}"]
    found = []
    for name in filter(None, names):
        # a user without a home, as in some containers
        with contextlib.suppress(RuntimeError):
            found.append(Path(name).expanduser())
    return found


def find(folder, name, functions):
    """The loaded library that a folder keeps under a name, or ``None`` if there is no whole one.

    Arguments
    ---------
    folder : pathlib.Path
    name : str
    functions : sequence of str
        Names of the functions that it must have.
    """
    data = _read(folder / f"{name}.so")
    if data is None:
        return None
    if _read(folder / f"{name}.sum") == _checksum(data):
        with contextlib.suppress(OSError):
            library = load(data, folder)
            if all(hasattr(library, function) for function in functions):
                _tidy(folder)
                return library
    _warn(f"{folder / name}.so is damaged or incomplete: it is compiled anew")
    return None


def load(data, *folders):
    """Load a library from a private copy, which no other process can change.

    Arguments
    ---------
    data : bytes
        The library.
    *folders : pathlib.Path
        Where a copy may stand for a moment on systems without files in memory, the temporary folder aside.

    Raises
    ------
    OSError
        If it is no library for this machine.
    """
    if _is_cut_off(data):
        raise OSError(errno.ENOEXEC, "the library is cut off")
    problem = None
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("mamba-speech-kernels", os.MFD_CLOEXEC)
        try:
            with open(handle, "wb", closefd=False) as file:
                file.write(data)
            # stays open to the end of the process: the loader knows the library by this path
            return ctypes.CDLL(f"/proc/self/fd/{handle}")
        except OSError as error:
            os.close(handle)
            problem = error
    for folder in (Path(tempfile.gettempdir()), *folders):
        try:
            handle, copy = tempfile.mkstemp(dir=folder, prefix="kernels-", suffix=_LEFTOVER)
        except OSError as error:
            problem = problem or error
            continue
        try:
            with open(handle, "wb") as file:
                file.write(data)
            return ctypes.CDLL(copy)
        except OSError as error:
            problem = problem or error
        finally:
            Path(copy).unlink(missing_ok=True)
    raise problem


def _is_cut_off(data):
    """Whether the end of an ELF library is missing: the loader does not look, and the process dies of it."""
    if data[:5] != b"\x7fELF\x02" or len(data) < 64:
        return data[:4] == b"\x7fELF" and len(data) < 64
    # the table of sections stands behind everything that is loaded
    start, size, count = (
        int.from_bytes(data[at : at + width], sys.byteorder)
        for at, width in ((0x28, 8), (0x3A, 2), (0x3C, 2))
    )
    return start + size * count > len(data)


@contextlib.contextmanager
def workspace(folder, seconds):
    """An empty folder inside ``folder`` to build in; one process at a time has one.

    Arguments
    ---------
    folder : pathlib.Path
        Made if need be.
    seconds : float
        Time to wait for another process's build; after it both build.

    Raises
    ------
    OSError
        If the folder cannot be used, or others can write in it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if not _is_own(status) or shared:
        raise PermissionError(errno.EPERM, "others can write in it")
    if shutil.disk_usage(folder).free < _ROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with _locked(folder, seconds) as held:
        if held:
            _remove_leftovers(folder)
        room = Path(tempfile.mkdtemp(dir=folder, prefix="build-", suffix=_LEFTOVER))
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)


def keep(room, name, data):
    """Put a library, and then its checksum, into the folder of a workspace.

    Raises
    ------
    OSError
        If there is no room, or the folder cannot be written.
    """
    for suffix, content in ((".so", data), (".sum", _checksum(data))):
        part = room / f"{name}{suffix}"
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
        os.replace(part, room.parent / part.name)


@cache
def _warn(text):
    """Log a warning, once a process."""
    logger.warning(text)


def _checksum(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}\n".encode()


def _read(path):
    """What a file holds; ``None`` if it cannot be read, is no file, or others can write it."""
    try:
        # without waiting, should it be a pipe
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return None
            if not _is_own(status) or status.st_mode & 0o022:
                _warn(f"{path} is not used: others can write it")
                return None
            return file.read(_MOST_BYTES)
    except OSError:
        return None


def _is_own(status):
    """Whether a file belongs to this user or to root."""
    return not hasattr(os, "getuid") or status.st_uid in (os.getuid(), 0)


@contextlib.contextmanager
def _locked(folder, seconds):
    """Hold the folder's lock, which ends with the process; yields whether it is held."""
    handle = os.open(folder / "kernels.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _acquire(handle, seconds)
    finally:
        os.close(handle)


def _acquire(handle, seconds):
    end = time.monotonic() + seconds
    while fcntl:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return False
        else:
            return True
    return False


def _tidy(folder):
    """Remove what killed builds left, unless a build is going on."""
    with contextlib.suppress(OSError):
        if _leftovers(folder):
            with _locked(folder, 0) as held:
                if held:
                    _remove_leftovers(folder)


def _leftovers(folder):
    return [entry for entry in os.scandir(folder) if entry.name.endswith(_LEFTOVER)]


def _remove_leftovers(folder):
    for entry in _leftovers(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
