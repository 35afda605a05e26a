"""Loading the sources of a mixture: recordings one after the other, at one rate, and brought to one level."""

import os
from math import gcd
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from data_prep.mixtures.levels import level_of
from mamba_speech.audio import AudioError, open_audio, resample_array
from mamba_speech.audio.errors import SHORTENED, is_shortened
from mamba_speech.audio.warnings import TRUNCATED

# Every source is brought to this level (dB below full scale) before its own gain.
LEVEL = -25.0
# WSJ0-2mix measures at this rate, also for its 16 kHz version.
ACTIVE_LEVEL_RATE = 8000
# A rate divided by the common divisor of both. Beyond it, scipy's filter takes seconds and hundreds of megabytes.
LARGEST_FACTOR = 1000


class UnusableError(ValueError):
    """A recording from which no mixture can be made; the text is the reason."""


def load_source(source, settings):
    """One speaker's waveform at the common level and with its gain.

    Returns
    -------
    waveform : np.ndarray
        Shape (samples,), float64.

    Raises
    ------
    UnusableError
        If a recording is unreadable, empty, silent, not mono, or has values that are no numbers.
    """
    waveform, rate = load_files(source.files, settings.speech_folder)
    resampled = resample(waveform, rate, settings.sample_rate)
    if settings.loudness == "active":
        measured = resample(waveform, rate, ACTIVE_LEVEL_RATE), ACTIVE_LEVEL_RATE
    else:
        measured = resampled, settings.sample_rate
    level = level_of(*measured, settings.loudness)
    if not np.isfinite(level):
        raise UnusableError(f"{source.files[0]} is silent or too short to measure its level")
    return resampled * 10 ** ((LEVEL - level + source.gain) / 20)


def load_files(names, speech_folder):
    """Recordings one after the other, and their sample rate."""
    waveforms, rates = [], []
    for name in names:
        try:
            waveform, rate, fault = _read_mono(Path(speech_folder, name))
        except (AudioError, OSError) as error:
            path = os.fsencode(Path(speech_folder, name))
            fault = SHORTENED if is_shortened(path) else "unreadable"
            raise UnusableError(f"{name} is {fault}") from error
        if fault:
            raise UnusableError(f"{name} {fault}")
        waveforms.append(waveform)
        rates.append(rate)
    if len(set(rates)) > 1:
        raise UnusableError(f"{names[0]} and those after it differ in sample rate")
    return np.concatenate(waveforms), rates[0]


def _read_mono(path):
    """Samples (samples,), float64, and rate of a recording, and what is wrong with it or None."""
    with open_audio(path) as audio:
        rate = audio.rate
        if audio.channels > 1:
            return None, rate, f"has {audio.channels} channels"
        samples = audio.read_all()
        if not len(samples):
            return None, rate, "has no samples"
        if not np.isfinite(samples).all():
            return None, rate, "has values that are not finite"
        mono = audio.judge(samples).apply(samples)
        if any(one.kind == TRUNCATED for one in audio.warnings):
            return None, rate, "is truncated"
        return mono.astype(np.float64), rate, None


def resample(waveform, from_rate, to_rate):
    """Change the sample rate (Hz), with scipy's polyphase filter (Kaiser window, beta 5).

    The official script's filter is of this kind. It grows with the rates divided by their common divisor; where that
    is small, the project's own resampler takes over.
    """
    common = gcd(from_rate, to_rate)
    if from_rate == to_rate:
        return waveform
    if max(from_rate, to_rate) // common > LARGEST_FACTOR:
        return resample_array(waveform, from_rate, to_rate)
    return resample_poly(waveform, to_rate // common, from_rate // common)
