"""What the inputs of a command stand for: patterns for the files that they match, `-` for standard input."""

import glob
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from mamba_speech.arguments import STANDARD_INPUT
from mamba_speech.audio import AudioError
from mamba_speech.audio.standard_input import standard_input
from mamba_speech.recordings import Recording

# bytes of standard input that are copied at a time
_BLOCK = 1 << 20


@contextmanager
def given_inputs(arguments):
    """Put files in place of patterns, and a recording in place of `-`, while a command runs.

    Standard input is read to its end, into a file in the system's folder for temporary files. So it may be of any
    format that a file may be of.

    Arguments
    ---------
    arguments : argparse.Namespace
        With ``inputs``, which is replaced, and ``raw``.

    Raises
    ------
    mamba_speech.audio.AudioError
        If standard input is closed, a terminal, or holds nothing.
    ValueError
        If ``raw`` is given without standard input, or standard input twice.
    """
    inputs = [one for given in arguments.inputs for one in matching_files(given)]
    count = inputs.count(STANDARD_INPUT)
    if count > 1:
        raise ValueError(
            f"standard input can be read once: give {STANDARD_INPUT} once, not {count} times"
        )
    if not count and arguments.raw is not None:
        raise ValueError(f"--raw is of standard input: give {STANDARD_INPUT} as the input")
    arguments.inputs = inputs
    if not count:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mamba-speech-") as folder:
        path = Path(folder, "standard input")
        copy_standard_input(path, arguments.raw)
        place = inputs.index(STANDARD_INPUT)
        arguments.inputs = [*inputs[:place], Recording.of_stream(path), *inputs[place + 1 :]]
        yield


def matching_files(given):
    """What a shell would put in place of a pattern; a path that is there, or that matches nothing, stays.

    Example
    -------
    >>> matching_files("nowhere/*.wav")
    ['nowhere/*.wav']
    """
    if os.path.lexists(given) or not glob.has_magic(given):
        return [given]
    return sorted(glob.glob(given, recursive=True)) or [given]


def copy_standard_input(path, rate=None):
    """Write standard input into a file.

    Arguments
    ---------
    path : Path
    rate : int, optional
        Samples a second of raw 16-bit little-endian samples in one channel, which get a header. By default the bytes
        are written as they come.

    Raises
    ------
    mamba_speech.audio.AudioError
        If there are no bytes, see also :func:`mamba_speech.audio.standard_input.standard_input`.
    """
    source = standard_input()
    if rate is None:
        with open(path, "wb") as file:
            shutil.copyfileobj(source, file, _BLOCK)
            size = file.tell()
    else:
        size = _copy_raw(source, path, rate)
    if not size:
        raise AudioError(
            "standard input ended before the first sample: is the program before it running?"
        )


def _copy_raw(source, path, rate):
    size, rest = 0, b""
    # W64 has no limit of 4 GiB
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16", format="W64") as file:
        while block := source.read(_BLOCK):
            size += len(block)
            block = rest + block
            whole = len(block) // 2 * 2
            rest = block[whole:]
            file.write(np.frombuffer(block[:whole], "<i2").astype(np.int16))
    return size
