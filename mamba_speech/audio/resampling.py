"""Changing the sample rate of a waveform, whole or piece by piece, with the SoX resampler library (soxr).

Its setting "HQ" keeps frequencies up to 0.9 of half the lower rate within 0.01 dB and suppresses those above half the
lower rate by 100 dB and more; the tests measure both. Its filters are small for any pair of rates, so nothing is
kept between calls, and memory grows with the samples alone.
"""

import logging
import math
import os
from contextlib import suppress

import numpy as np
import soxr
import torch

logger = logging.getLogger(__name__)

# samples that the library gets at a time: they stay in the processor's cache
_PIECE = 1 << 16

# Rates that were warned about. Loaders start new workers every epoch, so the processes share them;
# workers that are not forked get them from training.loading.
resampled_rates = torch.zeros(32, dtype=torch.int64).share_memory_()


def resample(waveform, rate, sample_rate):
    """A waveform at another rate; a warning says so once a rate and run.

    Arguments
    ---------
    waveform : torch.Tensor
        (samples,), float32 or float64, on the CPU.
    rate, sample_rate : int
        Samples a second that it has, and that are wanted.

    Returns
    -------
    torch.Tensor
        See :func:`resample_array`.

    Raises
    ------
    MemoryError
        If the result is larger than the machine's memory.

    Example
    -------
    >>> resample(torch.zeros(441), 44100, 16000).shape
    torch.Size([160])
    """
    if rate == sample_rate:
        return waveform
    warn_of_rate(rate, sample_rate)
    return torch.from_numpy(resample_array(waveform.numpy(), rate, sample_rate))


def resample_array(samples, rate, new_rate):
    """The same for an array, without a warning.

    Arguments
    ---------
    samples : numpy.ndarray
        (samples,), float32 or float64.
    rate, new_rate : int
        Samples a second before and after.

    Returns
    -------
    numpy.ndarray
        (samples * new_rate / rate, rounded up), of the same type. Its first sample is at the time of the first given.

    Raises
    ------
    MemoryError
        If the result is larger than the machine's memory.

    Example
    -------
    >>> resample_array(np.ones(8000), 16000, 8000)[1000:1003].round(6)
    array([1., 1., 1.])
    """
    if rate == new_rate:
        return samples
    length = _new_length(len(samples), rate, new_rate)
    _check_memory(length * samples.itemsize)
    resampled, given = np.empty(length, samples.dtype), 0
    stream = _Stream(rate, new_rate, 1, samples.dtype)
    for start in range(0, len(samples), _PIECE):
        ready = stream.take(samples[start : start + _PIECE, None])
        resampled[given : given + len(ready)] = ready[:, 0]
        given += len(ready)
    resampled[given:] = stream.end()[:, 0]
    return resampled


class BlockResampler:
    """Resample a stream; the blocks given, together, are what :func:`resample_array` makes of the whole.

    A block comes out some hundredths of a second late: up to 0.04 s from 44.1 or 48 kHz, up to 0.12 s from 8 kHz.

    Arguments
    ---------
    rate, new_rate : int
        Samples a second in and out.

    Example
    -------
    >>> resampler, wave = BlockResampler(44100, 8000), torch.randn(1, 50000)
    >>> parts = [resampler(block) for block in wave.split(777, dim=1)] + [resampler.finish()]
    >>> whole = resample_array(wave[0].numpy(), 44100, 8000)
    >>> torch.equal(torch.cat(parts, dim=1)[0], torch.from_numpy(whole))
    True
    """

    def __init__(self, rate, new_rate):
        self.rate, self.new_rate = rate, new_rate
        self.stream, self.channels = None, 1

    def __call__(self, block):
        """Take (channels, samples), give (channels, samples that are ready)."""
        self.channels = len(block)
        if self.rate == self.new_rate:
            return block
        samples = block.numpy().T
        if self.stream is None:
            self.stream = _Stream(self.rate, self.new_rate, self.channels, samples.dtype)
        return torch.from_numpy(self.stream.take(samples).T)

    def finish(self):
        """What is left at the end of the stream; call it once, after the last block."""
        if self.stream is None:
            return torch.zeros(self.channels, 0)
        return torch.from_numpy(self.stream.end().T)


class _Stream:
    """The library's stream, which rounds the number of samples, made to give all of them."""

    def __init__(self, rate, new_rate, channels, dtype):
        self.rate, self.new_rate = rate, new_rate
        self.read = self.given = 0
        self.silence = np.zeros((math.ceil(rate / new_rate), channels), dtype)
        # Of a quality above, the library's engine keeps tables that its threads share without a lock.
        self.soxr = soxr.ResampleStream(rate, new_rate, channels, dtype=dtype, quality="HQ")

    def take(self, samples):
        """From (samples, channels) to the samples that are ready."""
        ready = self.soxr.resample_chunk(np.ascontiguousarray(samples))
        self.read += len(samples)
        self.given += len(ready)
        return ready

    def end(self):
        """The rest of the samples."""
        rest = self.soxr.resample_chunk(self.silence, last=True)
        return rest[: _new_length(self.read, self.rate, self.new_rate) - self.given]


def warn_of_rate(rate, sample_rate):
    """Log that a rate is another than wanted, once a rate and run; the first 32 rates are named."""
    rates = resampled_rates.tolist()
    if rate in rates or 0 not in rates:
        return
    resampled_rates[rates.index(0)] = rate
    rest = ", and further rates are without a word" if rates.index(0) == len(rates) - 1 else ""
    logger.warning("audio at %d Hz is resampled to %d Hz%s", rate, sample_rate, rest)


def _new_length(samples, rate, new_rate):
    # whole numbers: a float would round long recordings
    return -(-samples * new_rate // rate)


def _check_memory(wanted):
    """Refuse bytes that the machine cannot have: a system that lends freely would end the process later."""
    with suppress(AttributeError, ValueError, OSError):
        if wanted > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise MemoryError(f"{wanted} bytes")
