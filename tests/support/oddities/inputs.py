"""What an odd input is: a file, a link or a list that is written into a folder, and what becomes of it.

An outcome is declared in a few words, which the tests read and `docs/inputs.md` prints.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import soxr

RATE = 16000
# the samples are the plain recording's
EXACT = math.inf
# what a recording becomes: by commands, and by preparation and training
SAME, READ, KEPT = "same", "read", "kept"
# a speaker is not told by less than half a second
TOO_SHORT = "error: s of speech"
COMMANDS = ("transcribe", "spot", "separate", "embed")
TRAINING = "training"
CONSUMERS = (*COMMANDS, TRAINING)


@dataclass(frozen=True)
class Odd:
    """An odd recording.

    Arguments
    ---------
    group : str
        Heading of its table.
    name : str
        Words for it, different from all others'.
    file : str
        Path in the folder of the group; a byte that is no UTF-8 is a lone surrogate.
    write : callable
        From the path and the samples of the plain recording, (samples,), float64 at 16 kHz, to nothing.
    commands : str
        What a command makes of it: ``same``, the plain recording's result; ``read``, a result; ``error: WORDS``.
        ``warns: KIND`` may follow the first two.
    training : str
        What preparation and training make of it: ``kept``, or ``skipped: REASON``.
    others : dict
        Other outcomes of single commands.
    likeness : float
        Least signal-to-noise ratio in dB of its samples at 16 kHz, where the plain recording's are the signal.
        ``EXACT`` for equal samples; None where it is another sound.
    """

    group: str
    name: str
    file: str
    write: Callable
    commands: str = SAME
    training: str = KEPT
    others: dict = field(default_factory=dict)
    likeness: float | None = EXACT

    def outcome(self, consumer):
        """What a consumer makes of it."""
        if consumer == TRAINING:
            return self.training
        return self.others.get(consumer, self.commands)


def parts_of(outcome):
    """An outcome as a kind, its words, and the kinds of warnings.

    Example
    -------
    >>> parts_of("same, warns: truncated")
    ('same', '', {'truncated'})
    >>> parts_of("error: empty file")
    ('error', 'empty file', set())
    """
    first, _, warnings = outcome.partition(", warns: ")
    kind, _, words = first.partition(": ")
    return kind, words, set(filter(None, warnings.split(" ")))


def resampled(samples, rate):
    """The plain samples at another rate."""
    return samples if rate == RATE else soxr.resample(samples, RATE, rate, "VHQ")


def pcm16(samples):
    """Little-endian bytes of 16-bit samples."""
    scaled = np.round(np.asarray(samples) * 2**15)
    return scaled.clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()
