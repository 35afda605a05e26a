"""Background recordings that no one speaks in, computed: the noises of a keyword corpus.

Each has the character of something that is heard where devices listen: steady or changing, with
and without tones and impulses. The length is free, the level always the same.
"""

import numpy as np
from scipy.signal import lfilter

from data_prep.spoken.acoustics import coloured_noise, rms

LEVEL_DB = -25.0


def wind(samples, sample_rate, random):
    """Brown noise that swells and fades within seconds."""
    return coloured_noise(samples, 2.0, random) * _swell(samples, sample_rate, 2.0, random)


def street(samples, sample_rate, random):
    """Pink noise that swells as traffic passes, over a steady floor."""
    swell = 0.3 + _swell(samples, sample_rate, 6.0, random)
    return coloured_noise(samples, 1.3, random) * swell


def machine(samples, sample_rate, random):
    """A hum of 50 Hz with harmonics, a slower beat on it, and pink noise."""
    time = np.arange(samples) / sample_rate
    pitch = 50.0 * random.uniform(0.95, 1.2)
    hum = sum(
        np.sin(2 * np.pi * (pitch * k * time + random.random())) / k**1.2 for k in range(1, 16)
    )
    beat = 1 + 0.4 * np.sin(2 * np.pi * random.uniform(2, 6) * time)
    return hum * beat + 0.5 * coloured_noise(samples, 1.0, random)


def dishes(samples, sample_rate, random):
    """Knocks at random times, each ringing at its own frequencies, over a soft noise."""
    sound = 0.05 * coloured_noise(samples, 1.0, random)
    length = sample_rate // 4
    time = np.arange(length) / sample_rate
    for start in random.integers(0, samples, max(3 * samples // sample_rate, 1)):
        tones = random.uniform(400, 5000, 4)
        ring = sum(np.sin(2 * np.pi * tone * time) for tone in tones)
        ring = ring * np.exp(-time * random.uniform(20, 80)) * random.lognormal(0, 0.7)
        piece = ring[: samples - start]
        sound[start : start + len(piece)] += piece
    return sound


def white(samples, sample_rate, random):
    """White noise."""
    return coloured_noise(samples, 0.0, random)


def pink(samples, sample_rate, random):
    """Pink noise."""
    return coloured_noise(samples, 1.0, random)


BACKGROUNDS = {
    "dishes": dishes,
    "machine": machine,
    "pink_noise": pink,
    "street": street,
    "white_noise": white,
    "wind": wind,
}


def make_background(name, seconds, sample_rate, random):
    """Compute a background recording.

    Arguments
    ---------
    name : str
        A key of `BACKGROUNDS`.
    seconds : float
    sample_rate : int
    random : np.random.Generator

    Returns
    -------
    waveform : np.ndarray
        Shape (samples,), float32, root mean square `LEVEL_DB` below full scale unless its peaks
        pass 0.95.

    Example
    -------
    >>> make_background("wind", 2.0, 16000, np.random.default_rng(0)).shape
    (32000,)
    """
    waveform = BACKGROUNDS[name](int(seconds * sample_rate), sample_rate, random)
    waveform = waveform * (10 ** (LEVEL_DB / 20) / max(rms(waveform), 1e-8))
    return (waveform * min(1.0, 0.95 / np.abs(waveform).max())).astype(np.float32)


class SteadyNoise:
    """Endless noise made piece by piece, without a seam between pieces.

    Arguments
    ---------
    level_db : float
        Root mean square below full scale.
    random : np.random.Generator

    Example
    -------
    >>> noise = SteadyNoise(-40.0, np.random.default_rng(0))
    >>> noise.next(100).shape
    (100,)
    """

    # A pole of a low-pass filter: power falls above some 250 Hz at 16 kHz.
    POLE = 0.9

    def __init__(self, level_db, random):
        self._random = random
        self._state = np.zeros(1)
        self._scale = 10 ** (level_db / 20) * np.sqrt(1 - self.POLE**2)

    def next(self, samples):
        """So many samples more, shape (samples,)."""
        white = self._random.standard_normal(samples) * self._scale
        noise, self._state = lfilter([1.0], [1.0, -self.POLE], white, zi=self._state)
        return noise


def _swell(samples, sample_rate, seconds, random):
    """A positive curve of mean about 1 through a random value every so many seconds."""
    points = random.lognormal(-0.3, 0.8, int(samples / sample_rate / seconds) + 3)
    return np.interp(np.arange(samples), np.arange(len(points)) * seconds * sample_rate, points)
