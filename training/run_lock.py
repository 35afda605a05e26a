"""One training at a time in a folder: a lock that ends with its process, whatever its loader's workers do.

It is a record lock of POSIX (``fcntl``): forked processes do not inherit it, and the system drops it when its process
dies. A process also drops such a lock by closing any other descriptor of the file, so nothing else may open the file.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

logger = logging.getLogger(__name__)

LOCK_FILE = ".training.lock"
# what lockf raises if another process holds the lock
_HELD = (errno.EACCES, errno.EAGAIN)
# ... and if the file system has no locks
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# seconds for which a holder may not have said yet who it is
_PATIENCE = 1.0
# descriptors of the locks that this process holds, by folder
_held = {}


class FolderInUse(OSError):
    """A folder in which another process trains."""


def hold(folder):
    """Let no other process train in a folder until this one ends, or releases it.

    Arguments
    ---------
    folder : str or Path
        Output folder. It is made.

    Raises
    ------
    FolderInUse
        If another process trains there. The sentence names its host and process.
    OSError
        If the folder cannot be made or written.
    """
    folder = Path(folder).resolve()
    if _key(folder) in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOCK_FILE
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        note = f"{socket.gethostname()} {os.getpid()}\n".encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)
    except OSError as error:
        holder = _read_holder(descriptor) if error.errno in _HELD else None
        os.close(descriptor)
        if error.errno in _HELD:
            raise FolderInUse(
                f"{folder}: another training runs there, {holder}; wait until it has ended, or give another "
                "--output_folder"
            ) from error
        if error.errno not in _WITHOUT_LOCKS:
            raise OSError(error.errno, error.strerror, str(file)) from error
        logger.warning(
            "%s: its file system has no locks, so nothing keeps a second training out", folder
        )
        return
    _held[_key(folder)] = descriptor


def _key(folder):
    # of this process: a forked one has the list, but not the locks
    return os.getpid(), folder


def _read_holder(descriptor):
    """Who holds a lock, in words; a process that has just taken it writes its note within a moment."""
    until = time.monotonic() + _PATIENCE
    while True:
        words = os.pread(descriptor, 1000, 0).decode(errors="replace").split()
        if len(words) == 2:
            return f"process {words[1]} on {words[0]}"
        if time.monotonic() > until:
            return "by a process that does not say who it is"
        time.sleep(0.02)


def release(folder=None):
    """Give up the lock of a folder, or all locks of this process.

    Arguments
    ---------
    folder : str or Path, optional
    """
    keys = list(_held) if folder is None else [_key(Path(folder).resolve())]
    for key in keys:
        descriptor = _held.pop(key, None)
        if descriptor is not None:
            # closing drops the lock
            os.close(descriptor)


@contextlib.contextmanager
def held(folder):
    """Hold a folder for a moment, if no other process trains there; a context manager.

    Yields
    ------
    bool
        Whether it is held.
    """
    before = _key(Path(folder).resolve()) in _held
    try:
        hold(folder)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        if not before:
            release(folder)
