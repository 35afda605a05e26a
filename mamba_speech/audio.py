"""Reading audio of any format, rate and number of channels as one waveform at the model's rate."""

import errno
import logging
import math
import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

import soundfile
import torch
from speechbrain.dataio import audio_io
from torchaudio.transforms import Resample

from mamba_speech.files import error_text

logger = logging.getLogger(__name__)

# Full scale is 1. Files whose integers were never scaled to it hold at most this, the integers of 32 bits;
# no scaling explains a larger sample.
LOUDEST = 2.0**31
# numbers in the filter of a resampler: a gigabyte while it is made
LONGEST_FILTER = 2**27

# Rates that were warned about. Loaders start new workers every epoch, so the processes share them;
# workers that are not forked get them from training.loading.
resampled_rates = torch.zeros(32, dtype=torch.int64).share_memory_()


class AudioError(ValueError):
    """A file that holds no usable audio; the message names it and says what is wrong."""


def load_audio(path, sample_rate, start=0, stop=None):
    """Read a file, or a part of it, as a mono waveform.

    Channels are averaged and another rate is resampled, with one warning a rate and process.

    Arguments
    ---------
    path : str or pathlib.Path
        Any file that libsndfile reads (WAV, FLAC, Ogg, MP3, ...).
    sample_rate : int
        Wanted samples a second.
    start, stop : int, optional
        The part to read, in samples of the file; by default all of it.

    Returns
    -------
    torch.Tensor
        (samples,), float32.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty, does not fit into memory, or holds samples that
        :func:`check_samples` refuses.
    """
    check_file(path)
    try:
        part = {} if stop is None else {"num_frames": stop - start}
        # as bytes: a name need not be text
        waveform, rate = audio_io.load(os.fsencode(path), frame_offset=start, **part)
    except Exception as error:
        # libsndfile's errors have no common type
        raise AudioError(recording_fault(path, unreadable(path, error))) from error
    if waveform.shape[-1] == 0:
        raise AudioError(f"{path}: holds no samples")
    check_samples(waveform, path)
    waveform = waveform.mean(0) if waveform.dim() == 2 else waveform
    try:
        return resample(waveform, rate, sample_rate)
    except (MemoryError, RuntimeError, ValueError) as error:
        raise AudioError(recording_fault(path, error)) from error


def resample(waveform, rate, sample_rate):
    """A waveform at another rate; a warning says so once a rate and process.

    Arguments
    ---------
    waveform : torch.Tensor
        (samples,) on the CPU.
    rate, sample_rate : int
        Samples a second that it has, and that are wanted.

    Example
    -------
    >>> resample(torch.zeros(441), 44100, 16000).shape
    torch.Size([160])
    """
    return waveform if rate == sample_rate else _resampler(rate, sample_rate)(waveform)


def check_samples(samples, name):
    """Refuse samples that are no sound.

    Full scale is 1. Larger samples are taken as they are, up to 2 ** 31, the largest that an integer of 32 bits
    gives where nobody scaled it.

    Arguments
    ---------
    samples : torch.Tensor or numpy.ndarray
        Of any shape, not empty.
    name : str or Path
        Named in errors.

    Raises
    ------
    AudioError
        If one is not finite, or its magnitude is over 2 ** 31.

    Example
    -------
    >>> check_samples(torch.tensor([0.5, 3e38]), "a.wav")
    Traceback (most recent call last):
        ...
    mamba_speech.audio.AudioError: a.wav: holds samples of up to 3e+38, where full scale is 1: it is damaged
    """
    # a NaN is both the least and the largest
    loudest = max(-float(samples.min()), float(samples.max()))
    if not math.isfinite(loudest):
        raise AudioError(f"{name}: holds samples that are not finite numbers")
    if loudest > LOUDEST:
        raise AudioError(
            f"{name}: holds samples of up to {loudest:.3g}, where full scale is 1: it is damaged"
        )


def make_resampler(rate, sample_rate):
    """A network that resamples waveforms.

    Arguments
    ---------
    rate, sample_rate : int
        Samples a second before and after.

    Raises
    ------
    ValueError
        If the two have no common divisor of any size, so that the filter would take gigabytes.
    """
    divisor = math.gcd(rate, sample_rate)
    if rate * sample_rate // divisor**2 > LONGEST_FILTER:
        raise ValueError(
            f"cannot be resampled from {rate} Hz to {sample_rate} Hz in memory; convert it with "
            "another program first, if its rate is right"
        )
    return Resample(rate, sample_rate)


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


def audio_fault(error):
    """What libsndfile found wrong, without the file's name, which its errors and SpeechBrain's repeat."""
    fault = getattr(error, "__cause__", None) or error
    return getattr(fault, "error_string", str(fault)).rstrip(".")


def unreadable(path, error):
    """The error of a file that could not be read, by what the reader raised: memory, or the audio."""
    cause = getattr(error, "__cause__", None) or error
    if lacks_memory(cause):
        return cause
    return AudioError(f"{path}: cannot be read as audio ({audio_fault(error)})")


def lacks_memory(error):
    """Whether an error says that memory could not be had; torch's allocators raise RuntimeError.

    Example
    -------
    >>> lacks_memory(MemoryError()), lacks_memory(RuntimeError("CUDA out of memory."))
    (True, True)
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    words = ("allocate memory", "out of memory", "Unable to allocate", "size calculation overflow")
    return isinstance(error, RuntimeError) and any(one in str(error) for one in words)


def recording_fault(name, error):
    """What went wrong with one recording, as a sentence that names it. The log has the rest, at level DEBUG.

    Arguments
    ---------
    name : str or Path
    error : Exception
        Of any type: whatever happens while one recording is worked on ends the work on it alone.

    Returns
    -------
    str

    Example
    -------
    >>> recording_fault("a.wav", MemoryError())
    'a.wav: does not fit into memory; cut it into shorter recordings'
    >>> recording_fault("a.wav", KeyError("x"))
    "a.wav: KeyError: 'x'"
    """
    name = str(name)
    if isinstance(error, AudioError):
        return str(error)
    logger.debug("%s", name, exc_info=error)
    if lacks_memory(error):
        return f"{name}: does not fit into memory; cut it into shorter recordings"
    text = next(iter(error_text(error).strip().splitlines()), "")[:500]
    if not isinstance(error, OSError | RuntimeError | ValueError) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if text.startswith(f"{name}: ") else f"{name}: {text}"


@cache
def _resampler(rate, sample_rate):
    resampler = make_resampler(rate, sample_rate)
    rates = resampled_rates.tolist()
    if rate not in rates:
        if 0 in rates:
            resampled_rates[rates.index(0)] = rate
        logger.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)
    return resampler
