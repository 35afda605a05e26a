"""What each script's ``main`` has around it: sentences for errors of the system, and locks that end with it."""

import atexit
import contextlib
import errno
import functools
import logging
import os
import sys
import threading

import torch

from mamba_speech.audio.names import safe_streams
from mamba_speech.files import error_text
from training import run_lock

logger = logging.getLogger(__name__)

# errors of a disk that takes no more
FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def script(main):
    """Decorate a script's ``main``: an error of the system ends it with one sentence, and its folders are released.

    Example
    -------
    >>> @script
    ... def main():
    ...     open("/no/such/file")
    >>> try:
    ...     main()
    ... except SystemExit as ended:
    ...     print(ended)
    /no/such/file: no such file or directory
    """

    @functools.wraps(main)
    def run(*arguments, **options):
        safe_streams()
        try:
            result = main(*arguments, **options)
            if "LOCAL_RANK" in os.environ and torch.distributed.is_initialized():
                _leave_distributed()
            return result
        except BrokenPipeError as error:
            # the reader of the output has left, as `head` does; nothing more can be said to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from error
        except OSError as error:
            if not error.errno:
                raise
            logger.debug("while the script ran", exc_info=True)
            raise SystemExit(tell(error)) from error
        finally:
            run_lock.release()

    return run


def _leave_distributed():
    """End a process of a distributed run that has done its work, with all that Python does at an exit.

    C++ would then take gloo's threads apart, which aborted 3 of 46 short runs. The process leaves before that.
    """
    run_lock.release()
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


@contextlib.contextmanager
def one_error_for_a_full_disk(checkpointer, folder):
    """Turn the system's refusal to write into one sentence that says what was kept; a context manager.

    Arguments
    ---------
    checkpointer : speechbrain.utils.checkpoints.Checkpointer or None
    folder : str or Path
        Output folder.

    Raises
    ------
    SystemExit
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_OR_READ_ONLY or checkpointer is None:
            raise
        last = checkpointer.find_checkpoint()
        kept = "no checkpoint was saved before"
        if last is not None:
            kept = f"the last whole checkpoint is kept: {last.path}"
        raise SystemExit(
            f"{tell(error, folder)}; {kept}. Make room, or make it writable, and start the same command again"
        ) from error


def tell(error, folder=None):
    """An error of the system as a sentence that begins with the file, or else with the folder of the run.

    Arguments
    ---------
    error : OSError
    folder : str or Path, optional

    Example
    -------
    >>> tell(OSError(28, "No space left on device"), "results/1")
    'results/1: no space left on device'
    """
    # of a copy the second file is the one that is written
    name = error.filename2 or error.filename or folder
    if name is None or not error.errno:
        return error_text(error)
    return error_text(OSError(error.errno, os.strerror(error.errno), name))
