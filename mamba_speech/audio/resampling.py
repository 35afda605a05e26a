"""Waveforms at another rate, whole and block by block."""

import logging
import math
from functools import cache

import torch
from torchaudio.transforms import Resample

logger = logging.getLogger(__name__)

# numbers in the filter of a resampler: a gigabyte while it is made
LONGEST_FILTER = 2**27

# Rates that were warned about. Loaders start new workers every epoch, so the processes share them;
# workers that are not forked get them from training.loading.
resampled_rates = torch.zeros(32, dtype=torch.int64).share_memory_()


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


class BlockResampler:
    """Resample a stream; the blocks given, together, are what ``torchaudio``'s ``Resample`` makes of the whole.

    Arguments
    ---------
    rate, new_rate : int
        Samples a second in and out.

    Example
    -------
    >>> import torch
    >>> from torchaudio.transforms import Resample
    >>> resample, wave = BlockResampler(44100, 8000), torch.randn(1, 50000)
    >>> parts = [resample(block) for block in wave.split(777, dim=1)] + [resample.finish()]
    >>> torch.allclose(torch.cat(parts, dim=1), Resample(44100, 8000)(wave), atol=1e-6)
    True
    """

    def __init__(self, rate, new_rate):
        divisor = math.gcd(rate, new_rate)
        self.step, self.new_step = rate // divisor, new_rate // divisor
        self.resample = make_resampler(rate, new_rate)
        # steps on either side that the filter reaches over
        self.reach = 0 if rate == new_rate else math.ceil(self.resample.width / self.step)
        self.read = self.given = 0
        self.buffer = None

    def __call__(self, block):
        """Take (channels, samples), give (channels, samples that are ready)."""
        if self.buffer is None:
            self.buffer = block.new_zeros(block.shape[0], self.reach * self.step)
        self.read += block.shape[1]
        return self._advance(block)

    def finish(self):
        """What is left at the end of the stream; call it once, after the last block."""
        if self.buffer is None:
            return torch.zeros(1, 0)
        missing = math.ceil(self.new_step * self.read / self.step) - self.given
        silence = self.buffer.new_zeros(self.buffer.shape[0], (self.reach + 1) * self.step)
        return self._advance(silence)[:, :missing]

    def _advance(self, block):
        self.buffer = torch.cat([self.buffer, block], dim=1)
        steps = max(0, self.buffer.shape[1] // self.step - 2 * self.reach)
        if steps == 0:
            return block.new_zeros(block.shape[0], 0)
        whole = self.resample(self.buffer[:, : (steps + 2 * self.reach) * self.step])
        first = self.reach * self.new_step
        ready = whole[:, first : first + steps * self.new_step]
        self.buffer = self.buffer[:, steps * self.step :].clone()
        self.given += ready.shape[1]
        return ready


@cache
def _resampler(rate, sample_rate):
    resampler = make_resampler(rate, sample_rate)
    rates = resampled_rates.tolist()
    if rate not in rates:
        if 0 in rates:
            resampled_rates[rates.index(0)] = rate
        logger.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)
    return resampler
