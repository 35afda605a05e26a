"""Standard input as sound: the bytes of a pipe, or the file that it was redirected from."""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from mamba_speech.audio.errors import AudioError


def standard_input():
    """The bytes of standard input.

    Raises
    ------
    AudioError
        If it is closed, or a terminal.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise AudioError("standard input is closed: pipe sound into it, or name a file")
    if sys.stdin.isatty():
        raise AudioError("standard input is a terminal: pipe sound into it, or name a file")
    with suppress(AttributeError, OSError):
        # a pipe that does not wait reads as if it had ended, wherever its writer is slower
        os.set_blocking(sys.stdin.fileno(), True)
    return sys.stdin.buffer


def redirected_file():
    """The path of a file that standard input was redirected from, which may be in any format; None if there is none."""
    try:
        number = standard_input().fileno()
        path = Path(f"/dev/fd/{number}")
        is_file = stat.S_ISREG(os.fstat(number).st_mode) and os.lseek(number, 0, os.SEEK_CUR) == 0
    except OSError:
        return None
    return path if is_file and path.exists() else None
