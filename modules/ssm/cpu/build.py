"""Builds the C kernels of this folder with the system's compiler at first use, and loads them.

The library is kept under a hash of everything that it depends on: the sources, the flags, the compiler's version
and the processor. ``modules/ssm/cpu/cache.py`` says where, and ``modules/ssm/cpu/compiler.py`` by which compiler.
"""

import logging
import os
import shlex
import tempfile
import threading
from pathlib import Path

from modules.ssm.cpu import cache, compiler

logger = logging.getLogger(__name__)

_FUNCTIONS = tuple(
    f"mamba_speech_{name}"
    for name in (
        "scan_forward",
        "scan_backward",
        "conv_forward",
        "conv_backward",
        "frame_forward",
        "decoder_step",
        "prefixes_advance",
    )
)

_lock = threading.Lock()
_loaded = None
_reason = None


def library():
    """The loaded kernels.

    Returns
    -------
    ctypes.CDLL

    Raises
    ------
    RuntimeError
        If they cannot be built or loaded here, with the reason.
    """
    reason = refusal()
    if reason is not None:
        raise RuntimeError(f"the compiled CPU kernels cannot be used: {reason}")
    return _loaded


def refusal():
    """Why the compiled kernels cannot be used here, or ``None``; the first call builds."""
    global _loaded, _reason
    if _loaded is None and _reason is None:
        with _lock:
            if _loaded is None and _reason is None:
                try:
                    _loaded = _build_and_load()
                except (OSError, RuntimeError, ValueError, MemoryError) as error:
                    _reason = str(error) or type(error).__name__
                    logger.warning(
                        "compiled CPU kernels unavailable, torch takes over: %s", _reason
                    )
    return _reason


# what torch.compiler.assume_constant_result does, which imports the whole compiler: a second of each start
refusal._dynamo_marked_constant = True


def _build_and_load():
    problems = []
    for command in compiler.compilers():
        try:
            return _library(command, f"kernels-{compiler.key(command)}")
        except (OSError, RuntimeError) as error:
            problems.append(str(error))
    raise RuntimeError("; ".join(problems))


def _library(command, name):
    """The kernels by one compiler: found in a folder, else built and kept in the first that takes them."""
    problems = []
    for folder in cache.folders():
        found = cache.find(folder, name, _FUNCTIONS)
        try:
            if found is None:
                with cache.workspace(folder, compiler.BUILD_SECONDS) as room:
                    # another process may have built them meanwhile
                    found = cache.find(folder, name, _FUNCTIONS) or _build(command, name, room)
        except OSError as error:
            problems.append(f"{folder} ({error.strerror or error})")
            continue
        if problems and os.environ.get("MAMBA_SPEECH_CACHE"):
            _warn_of(problems, f"{folder} keeps them")
        return found
    with tempfile.TemporaryDirectory(prefix="mamba-speech-") as room:
        found, _ = _compiled(command, Path(room))
    _warn_of(problems, "every process compiles them")
    return found


def _build(command, name, room):
    """The kernels, built and kept."""
    found, data = _compiled(command, room)
    try:
        cache.keep(room, name, data)
    except OSError as error:
        _warn_of([f"{room.parent} ({error.strerror or error})"], "every process compiles them")
    return found


def _compiled(command, room):
    """The kernels and their bytes, built in an empty folder."""
    who = compiler.at_fault(command)
    data, flags = compiler.compile_kernels(command, room)
    try:
        found = cache.load(data, room)
    except OSError as error:
        raise RuntimeError(
            f"{who} made no library for this machine ({error}){compiler.REMEDY}"
        ) from None
    if not all(hasattr(found, function) for function in _FUNCTIONS):
        raise RuntimeError(f"{who} made a library without the kernels{compiler.REMEDY}")
    logger.info("compiled the CPU kernels: %s %s", shlex.join(command), flags)
    return found, data


def _warn_of(problems, instead):
    logger.warning(
        "compiled CPU kernels cannot be kept in %s; %s: name a folder of your own in MAMBA_SPEECH_CACHE",
        ", ".join(problems),
        instead,
    )
