"""Reading one recording to see whether a corpus can use it, by the reader that commands and training use."""

import logging
import os
import stat
from dataclasses import dataclass

from mamba_speech.audio import AudioError, open_audio
from mamba_speech.audio.errors import NO_SAMPLES, UNREADABLE
from mamba_speech.audio.finding import special_kind
from mamba_speech.audio.warnings import TRUNCATED

logger = logging.getLogger(__name__)

# How much of a recording is read: all of it, or its header and its end.
FULL, HEADER = "full", "header"
NOT_FOUND, EMPTY = "audio file not found", "empty audio file"
CUT = "truncated audio"
# Samples that are decoded at a time.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Inspected:
    """What a recording is.

    Attributes
    ----------
    frames, rate, channels : int
        0, 1 and 0 if there is something wrong.
    reason : str or None
        What is wrong with it.
    warnings : tuple of mamba_speech.audio.AudioWarning
        What is odd about it.
    silent : bool
        Whether every sample is 0, as far as all were read.
    """

    frames: int = 0
    rate: int = 1
    channels: int = 0
    reason: str | None = None
    warnings: tuple = ()
    silent: bool = False


def inspect(path, verify=FULL, odd=None):
    """Read an audio file, to see whether it can be used.

    Arguments
    ---------
    path : str or Path
    verify : str
        `full` decodes all of it. `header` reads the header and the end, which shows a truncated file
        but no damage before the end; a file of floating-point numbers is read whole all the same.
    odd : list, optional
        Gets the warnings about a file that can be used.

    Returns
    -------
    frames, sample_rate : int
        0 and 1 if there is something wrong.
    reason : str or None
        What is wrong with it. A truncated file is left out: its text would tell more than it holds.
    """
    found = examine(path, verify)
    if odd is not None and not found.reason:
        odd.extend(found.warnings)
    return found.frames, found.rate, found.reason


def examine(path, verify=FULL):
    """The same as `inspect`, with channels and warnings.

    Arguments
    ---------
    path, verify
        See `inspect`.

    Returns
    -------
    Inspected
    """
    if not os.path.isfile(path):
        return Inspected(reason=_what_else(path))
    try:
        with open_audio(path) as audio:
            whole = verify == FULL or audio.floating
            frames, sounds = _decode(audio) if whole else (audio.check_end(), True)
            reason = None if frames else NO_SAMPLES
            if frames and any(one.kind == TRUNCATED for one in audio.warnings):
                reason = CUT
            if reason:
                return Inspected(reason=reason, warnings=audio.warnings)
            return Inspected(
                frames, audio.rate, audio.channels, None, audio.warnings, silent=not sounds
            )
    except AudioError as error:
        return Inspected(reason=EMPTY if _is_empty(path) else error.reason)
    except Exception as error:
        logger.debug("%s", path, exc_info=error)
        return Inspected(reason=UNREADABLE)


def _what_else(path):
    """Why a path is no file."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return "link to a file that is not there" if os.path.islink(path) else NOT_FOUND
    return NOT_FOUND if stat.S_ISDIR(mode) else f"a {special_kind(mode)}, and no file"


def _decode(audio):
    """Read an open recording whole; how many samples it has, and whether one is not 0."""
    frames, sounds = 0, False
    if audio.channels > 1 or audio.floating:
        for block in audio.mono_blocks():
            frames, sounds = frames + len(block), sounds or bool(block.any())
        return frames, sounds
    # shorts are the fastest to read
    while len(block := audio.read(BLOCK, "int16")):
        frames, sounds = frames + len(block), sounds or bool(block.any())
    return frames, sounds


def _is_empty(path):
    try:
        return os.path.getsize(path) == 0
    except OSError:
        return False


def tell_oddities(odd, description):
    """Warn of recordings that are used although they are odd: one line a kind.

    Arguments
    ---------
    odd : list of AudioWarning
    description : str
        What the recordings belong to.
    """
    kinds = {}
    for one in odd:
        kinds.setdefault(one.kind, []).append(one.text)
    for kind, texts in kinds.items():
        count = "1 recording is" if len(texts) == 1 else f"{len(texts)} recordings are"
        logger.warning("%s: %s used with the warning %s; %s", description, count, kind, min(texts))
