"""What can be wrong with a recording, as one sentence that names it."""

import errno
import logging
import math

from mamba_speech.files import error_text

logger = logging.getLogger(__name__)

# Full scale is 1. Files whose integers were never scaled to it hold at most this, the integers of 32 bits;
# no scaling explains a larger sample.
LOUDEST = 2.0**31
# how WSJ0 and other corpora of their time are packed
SHORTENED = "SPHERE compressed by shorten, which cannot be read: unpack it with sph2pipe -f wav"


# Reasons, as the preparation of corpora lists them.
NO_SAMPLES, UNREADABLE = "no samples", "unreadable audio"
NOT_FINITE, NO_SOUND = "samples that are not finite numbers", "samples that are no sound"


class AudioError(ValueError):
    """A file that holds no usable audio; the message names it and says what is wrong.

    Arguments
    ---------
    message : str
    reason : str
        The same without the name, in the words of a list of files.
    """

    def __init__(self, message, reason=UNREADABLE):
        super().__init__(message)
        self.reason = reason


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
    >>> import numpy as np
    >>> check_samples(np.array([0.5, 3e38]), "a.wav")
    Traceback (most recent call last):
        ...
    mamba_speech.audio.errors.AudioError: a.wav: holds samples of up to 3e+38, where full scale is 1: it is damaged
    """
    # a NaN is both the least and the largest
    loudest = max(-float(samples.min()), float(samples.max()))
    if not math.isfinite(loudest):
        raise AudioError(f"{name}: holds samples that are not finite numbers", NOT_FINITE)
    if loudest > LOUDEST:
        raise AudioError(
            f"{name}: holds samples of up to {loudest:.3g}, where full scale is 1: it is damaged",
            NO_SOUND,
        )


def audio_fault(error):
    """What libsndfile found wrong, without the file's name, which its errors and SpeechBrain's repeat."""
    fault = getattr(error, "__cause__", None) or error
    return getattr(fault, "error_string", str(fault)).rstrip(".")


def unreadable(path, error):
    """The error of a file that could not be read, by what the reader raised: memory, or the audio."""
    cause = getattr(error, "__cause__", None) or error
    if lacks_memory(cause):
        return cause
    if is_shortened(path):
        return AudioError(f"{path}: {SHORTENED}")
    return AudioError(f"{path}: cannot be read as audio ({audio_fault(error)})")


def is_shortened(path):
    """Whether a file is NIST SPHERE with samples compressed by shorten, as on WSJ0's discs; libsndfile reads the rest.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    bool
        False for what is no file.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(1024)
    except (OSError, ValueError):
        return False
    return header.startswith(b"NIST_1A") and b"shorten" in header


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
