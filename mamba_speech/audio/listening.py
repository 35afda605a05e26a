"""How a recording becomes one channel at full scale 1: which channels are used, and what its numbers are divided by.

Channels are averaged, except where that would hurt: opposite channels cancel, and silent ones halve the level. Both
are decided for the whole file, and by the same steps wherever it is read.
"""

from dataclasses import dataclass

import numpy as np

from mamba_speech.audio.warnings import (
    INTEGER_SCALE,
    OPPOSITE_CHANNELS,
    SILENT_CHANNEL,
    AudioWarning,
)

# seconds that are listened to at a time
PIECE_SECONDS = 5.0
# power of a silent channel, at most, beside the loudest: 40 dB less
SILENT = 1e-4
# correlation below which two channels are opposite, and above which they are surely not
OPPOSITE, DIFFERENT = -0.8, -0.4
# Channels may be opposite in a part of the file: the length of such parts, and the share of all power that they need.
PART_SECONDS, PART_SHARE = 0.5, 0.1
# samples from which something about channels can be said
FEWEST = 200
# Numbers that are kept while a verdict is open. A file of no more is heard to its end.
HEARD_WHOLE = 1 << 21
# Seconds after which channels count as different, and samples as floats.
CHANNEL_SECONDS, SCALE_SECONDS = 10.0, 30.0
# No music is as loud: whole numbers above the first, and any numbers above the second, are integers of these scales.
LOUD_WHOLE, LOUD = 4.0, 256.0
# share of the samples of loud pieces that are loud, at least: fewer are clicks
LOUD_SHARE = 0.01
SCALES = {16: 2.0**15, 24: 2.0**23, 32: 2.0**31}


@dataclass(frozen=True)
class Verdict:
    """How samples of a file become one channel.

    Attributes
    ----------
    scale : float
        What they are divided by.
    channels : tuple of int
        Those that are averaged; all if it is empty.
    oddities : tuple of (str, str)
        Kinds of warnings, and what they say after the name of the file.
    """

    scale: float = 1.0
    channels: tuple = ()
    oddities: tuple = ()

    def apply(self, samples):
        """One channel (samples,) of (samples, channels), float32."""
        chosen = self.channels or range(samples.shape[1])
        if len(chosen) > 2:
            mono = samples[:, chosen].mean(axis=1)
        elif len(chosen) == 2:
            # many times as fast as a mean over an axis of two
            mono = (samples[:, chosen[0]] + samples[:, chosen[1]]) * np.float32(0.5)
        else:
            mono = np.ascontiguousarray(samples[:, chosen[0]])
        return mono if self.scale == 1 else mono / np.float32(self.scale)

    def warnings(self, name):
        """Its oddities as warnings about a file."""
        return tuple(AudioWarning(kind, f"{name}: {text}") for kind, text in self.oddities)


class Listener:
    """Hears the samples of a file from its start, until its verdict is settled.

    Arguments
    ---------
    rate, channels : int
    frames : int or None
        Length of the file; None if that is not known.
    floating : bool
        Whether the file holds floating-point numbers, whose scale may be wrong.

    Attributes
    ----------
    settled : bool
        Whether the rest of the file can change nothing. At once for one channel of integers.

    Example
    -------
    >>> left = np.sin(np.arange(8000)).astype("float32")
    >>> verdict = listen(np.stack([left, -left], 1), 8000)
    >>> verdict.warnings("a.wav")
    (AudioWarning(kind='opposite_channels', text='a.wav: its channels cancel out: only channel 1 is used'),)
    >>> bool((verdict.apply(np.stack([left, -left], 1)) == left).all())
    True
    """

    def __init__(self, rate, channels, frames, floating):
        self.rate, self.channels, self.frames, self.floating = rate, channels, frames, floating
        self.settled = channels == 1 and not floating
        self.heard, self.peak, self.whole = 0, 0.0, True
        self.loud = self.beside = 0
        self.sums, self.products = np.zeros(channels), np.zeros((channels, channels))
        # power of each two channels, and how much of it lies where they are opposite
        self.power, self.opposed = np.zeros((channels, channels)), np.zeros((channels, channels))

    @property
    def piece(self):
        """Samples to hear at a time, so that every reader takes the same steps."""
        return max(1, round(PIECE_SECONDS * self.rate))

    def hear(self, samples):
        """Take the next `piece` of samples (samples, channels); the last may be shorter."""
        self.heard += len(samples)
        if self.floating:
            peak = max(-float(samples.min()), float(samples.max()))
            self.peak = max(self.peak, peak)
            self.whole = self.whole and _are_whole(samples)
            if peak > LOUD_WHOLE:
                self.loud += int(np.count_nonzero(np.abs(samples) > LOUD_WHOLE))
                self.beside += samples.size
        if self.channels > 1:
            # in double precision where numbers may be large
            numbers = samples.astype(np.float64) if self.peak > LOUD_WHOLE else samples
            self._hear_channels(numbers)
        self.settled = self._scale_settled() and self._channels_settled()

    def _hear_channels(self, numbers):
        part = max(1, round(PART_SECONDS * self.rate))
        whole = len(numbers) // part * part
        for some in (numbers[:whole].reshape(-1, part, self.channels), numbers[None, whole:]):
            count = some.shape[1]
            if not some.size:
                continue
            # as products, which are faster than sums over so short rows
            sums = (np.ones(count, some.dtype) @ some).astype(np.float64)
            products = (some.transpose(0, 2, 1) @ some).astype(np.float64)
            self.sums += sums.sum(axis=0)
            self.products += products.sum(axis=0)
            if count < FEWEST:
                continue
            powers, correlations = _moments(sums, products, count)
            power = powers[:, :, None] + powers[:, None, :]
            self.power += power.sum(axis=0)
            self.opposed += np.where(correlations < OPPOSITE, power, 0.0).sum(axis=0)

    def _scale_settled(self):
        if not self.floating:
            return True
        long = self.heard >= SCALE_SECONDS * self.rate
        return long and not self.whole and self.peak <= LOUD_WHOLE

    def _channels_settled(self):
        if self.channels == 1:
            return True
        if self.frames is None or self.frames * self.channels <= HEARD_WHOLE:
            return False
        if self.heard < CHANNEL_SECONDS * self.rate:
            return False
        # the most that the loudest channel can come to
        rest = max(0, self.frames - self.heard) * max(1.0, self.peak) ** 2
        powers, correlations = self._moments()
        loudest = float(self.products.diagonal().max()) + rest
        if powers.min() <= SILENT * loudest or correlations.min() <= DIFFERENT:
            return False
        return bool(self._opposite_share().max() < PART_SHARE / 2)

    def _moments(self):
        return _moments(self.sums, self.products, max(1, self.heard))

    def _opposite_share(self):
        """How much of the power of each two channels lies where they are opposite (channels, channels)."""
        return self.opposed / np.where(self.power > 0, self.power, np.inf)

    def verdict(self):
        """The verdict on what was heard, once it is `settled` or the file has ended."""
        scale, oddities = self._scale()
        channels = ()
        if self.channels > 1:
            channels, odd = self._choose()
            oddities += odd
        return Verdict(scale, channels, tuple(oddities))

    def _scale(self):
        if not self.floating or self.peak <= (LOUD_WHOLE if self.whole else LOUD):
            return 1.0, []
        if not self.whole and self.loud < LOUD_SHARE * self.beside:
            return 1.0, []
        # another rate, or a sum of recordings, may have made peaks that are larger than the integers were
        bits = next((one for one, scale in SCALES.items() if self.peak <= 2.0 * scale), 32)
        text = (
            f"holds floating-point samples of up to {self.peak:.6g}, which are on the scale of {bits}-bit integers: "
            f"they are divided by {SCALES[bits]:.0f}"
        )
        return SCALES[bits], [(INTEGER_SCALE, text)]

    def _choose(self):
        powers, correlations = self._moments()
        loudest = int(powers.argmax())
        if powers[loudest] == 0 or self.heard < FEWEST:
            return (), []
        heard = [int(one) for one in np.flatnonzero(powers > SILENT * powers[loudest])]
        among = np.ix_(heard, heard)
        if correlations[among].min() < OPPOSITE or self._opposite_share()[among].max() > PART_SHARE:
            text = f"its channels cancel out: only channel {loudest + 1} is used"
            return (loudest,), [(OPPOSITE_CHANNELS, text)]
        if len(heard) == self.channels:
            return (), []
        silent = [str(one + 1) for one in range(self.channels) if one not in heard]
        quiet = f"its channel {silent[0]} is silent"
        if len(silent) > 1:
            quiet = f"{len(silent)} of its {self.channels} channels are silent"
        used = f"only channel {heard[0] + 1} is used"
        if len(heard) > 1:
            used = f"the other {len(heard)} are averaged"
        return tuple(heard), [(SILENT_CHANNEL, f"{quiet}: {used}")]


def listen(samples, rate, floating=False):
    """The verdict on samples in memory.

    Arguments
    ---------
    samples : numpy.ndarray
        (samples, channels), float32, of a whole file.
    rate : int
    floating : bool
        See :class:`Listener`.

    Returns
    -------
    Verdict
    """
    return hear_all(Listener(rate, samples.shape[1], len(samples), floating), samples)


def hear_all(listener, samples):
    """The verdict of a listener that hears all samples (samples, channels) of a file."""
    for start in range(0, len(samples), listener.piece):
        if listener.settled:
            break
        listener.hear(samples[start : start + listener.piece])
    return listener.verdict()


def _moments(sums, products, count):
    """Sums of squares (..., channels) without offsets, and correlations (..., channels, channels)."""
    moments = products - sums[..., :, None] * sums[..., None, :] / count
    squares = np.diagonal(products, axis1=-2, axis2=-1)
    # what rounding leaves of a constant is no power
    powers = np.maximum(np.diagonal(moments, axis1=-2, axis2=-1) - 1e-5 * squares, 0.0)
    norms = np.sqrt(powers)
    norms[norms == 0] = np.inf
    return powers, np.clip(moments / (norms[..., :, None] * norms[..., None, :]), -1.0, 1.0)


def _are_whole(samples):
    # most recordings show it at once
    return all(bool((part == np.rint(part)).all()) for part in (samples[:1000], samples[1000:]))
