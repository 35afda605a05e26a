"""Memory that the process has freed, and the system has not got back."""

import ctypes
from contextlib import suppress


def return_freed_memory():
    """Give the system what was freed, where the C library can (glibc); a matter of some hundredths of a second.

    Arrays of ever other lengths leave gaps between them, into which the next ones do not fit: without this call, the
    process grows with the number of recordings.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
