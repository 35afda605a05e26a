"""Background noises for training, generated anew for every clip: no recording is needed, and no two are alike.

Each has the character of noises around people: steady or swelling, pulsed as engines are, tonal as voices, animals and
sirens are, or knocking. All are drawn from torch's generator, so that a seed repeats them.
"""

import math

import torch
from torch.nn import functional as F

# bands in which a noise's spectrum is bent, and the deviation of their gains in dB
BANDS, BEND_DB = 10, 8.0


def generate_noise(samples, sample_rate):
    """A noise of a random kind, with root mean square 1.

    Arguments
    ---------
    samples : int
    sample_rate : int
        In Hz.

    Returns
    -------
    torch.Tensor
        (samples,)

    Example
    -------
    >>> noise = generate_noise(16000, 16000)
    >>> noise.shape, round(float(noise.square().mean()), 3)
    (torch.Size([16000]), 1.0)
    """
    kind = KINDS[int(torch.randint(len(KINDS), ()))]
    noise = _levelled(kind(samples, sample_rate))
    # some noise is always around
    floor = _levelled(steady(samples, sample_rate))
    return _levelled(noise + floor * 10 ** (-_uniform(0, 40) / 20))


def steady(samples, sample_rate):
    """Noise whose power falls with frequency to a random exponent, with a random bend in each band."""
    exponent = _uniform(-0.5, 2.2)
    return _bent(torch.randn(samples), exponent)


def swelling(samples, sample_rate):
    """Steady noise that swells and fades within parts of a second."""
    points = 2 + round(samples / sample_rate * math.exp(_uniform(0.0, 2.5)))
    return steady(samples, sample_rate) * (1.2 * _curve(torch.randn(points), samples)).exp()


def pulsed(samples, sample_rate):
    """Noise in regular pulses, from slow beats to the rattle of an engine."""
    rate, sharpness = math.exp(_uniform(0.7, 4.5)), math.exp(_uniform(-0.5, 2.5))
    phase = _phase(torch.full((samples,), rate), sample_rate)
    pulses = (0.5 + 0.5 * torch.cos(phase)) ** sharpness
    return steady(samples, sample_rate) * (_uniform(0.0, 0.3) + pulses)


def tonal(samples, sample_rate):
    """A tone with harmonics, whose pitch glides and whose loudness comes and goes."""
    points = 2 + round(samples / sample_rate * math.exp(_uniform(0.0, 2.5)))
    lowest = math.exp(_uniform(math.log(60), math.log(1800)))
    pitch = lowest * torch.exp(_uniform(0.0, 0.4) * _curve(torch.randn(points), samples))
    phase = _phase(pitch, sample_rate)
    count = max(1, min(30, int(0.45 * sample_rate / float(pitch.max()))))
    numbers = torch.arange(1, count + 1)
    gains = numbers ** -_uniform(0.0, 1.5) * torch.exp(0.7 * torch.randn(count))
    tone = (gains[:, None] * torch.sin(numbers[:, None] * phase + 6.28 * torch.rand(count, 1))).sum(
        0
    )
    loudness = torch.sigmoid(_uniform(1.0, 8.0) * _curve(torch.randn(points), samples))
    return tone * loudness


def knocking(samples, sample_rate):
    """Knocks at random times; each one rings and dies away."""
    count = 1 + int(samples / sample_rate * math.exp(_uniform(0.0, 3.7)))
    hits = torch.zeros(samples)
    hits[torch.randint(samples, (count,))] = torch.exp(0.7 * torch.randn(count))
    length = min(samples, sample_rate // 4)
    time = torch.arange(length) / sample_rate
    ring = _bent(torch.randn(length), _uniform(-0.5, 1.5))
    tone = torch.sin(2 * math.pi * math.exp(_uniform(5.3, 8.5)) * time)
    ring = (ring + _uniform(0.0, 2.0) * tone) * torch.exp(-time * math.exp(_uniform(2.5, 6.0)))
    size = samples + length
    return torch.fft.irfft(torch.fft.rfft(hits, size) * torch.fft.rfft(ring, size), size)[:samples]


KINDS = (steady, swelling, pulsed, tonal, knocking)


def _uniform(low, high):
    return low + (high - low) * float(torch.rand(()))


def _levelled(noise):
    return noise / noise.square().mean().sqrt().clamp(min=1e-8)


def _curve(points, samples):
    """A line through random values at equal distances, (samples,)."""
    return F.interpolate(points[None, None], samples, mode="linear", align_corners=True)[0, 0]


def _phase(pitch, sample_rate):
    """The phase of a tone of this course of pitches in Hz; in float64, since it grows along the clip."""
    return (2 * math.pi * torch.cumsum(pitch.double(), 0) / sample_rate).float()


def _bent(white, exponent):
    """Noise with power falling to an exponent of frequency, and gains that differ from band to band."""
    spectrum = torch.fft.rfft(white)
    bins = len(spectrum)
    slope = torch.arange(1, bins + 1).float() ** (-exponent / 2)
    # no power of note below some 50 Hz, which no microphone of a device hears
    slope[: bins // 160] = 0
    gains = 10 ** (BEND_DB / 20 * _curve(torch.randn(BANDS), bins))
    return torch.fft.irfft(spectrum * slope * gains, len(white))
