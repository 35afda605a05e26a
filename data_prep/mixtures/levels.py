"""How loud a recording is, in three measures: RMS, ITU-T P.56 active speech level, and LUFS.

Mixing brings every source to one level before its own gain. WSJ0-2mix did so by the active speech
level of ITU-T P.56 (method B), which leaves pauses out. LUFS is the loudness of ITU-R BS.1770.
"""

from math import ceil

import numpy as np
from scipy.signal import cheby2, lfilter, sosfilt

MEASURES = ("rms", "active", "lufs")

# ITU-T P.56, section 8: time constant of the envelope, hangover, margin between the level and the
# threshold by which speech is told from pauses.
ENVELOPE_SECONDS = 0.03
HANGOVER_SECONDS = 0.2
MARGIN_DB = 15.9
THRESHOLDS = 20
# So that the envelope of the last word can die away.
SILENCE_SECONDS = 0.35
BAND = (200.0, 5500.0)


def level_of(waveform, sample_rate, measure):
    """The level of a recording.

    Arguments
    ---------
    waveform : np.ndarray
        Shape (samples,), full scale is 1.
    sample_rate : int
    measure : str
        `rms`: 10 log10 of the mean square. `active`: the active speech level of ITU-T P.56. `lufs`:
        integrated loudness of ITU-R BS.1770, by the library pyloudnorm.

    Returns
    -------
    level : float
        dB below full scale (LUFS for `lufs`); -inf for silence, for `lufs` also for anything
        under its gate of -70, or shorter than its block of 0.4 s.

    Raises
    ------
    ImportError
        If `lufs` is asked for and pyloudnorm is not installed.

    Example
    -------
    >>> round(level_of(np.full(8000, 0.1), 8000, "rms"), 6)
    -20.0
    """
    if measure == "lufs":
        meter = loudness_meter(sample_rate)
        if len(waveform) <= meter.block_size * sample_rate:
            return -np.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            loudness = meter.integrated_loudness(waveform)
        return float(loudness) if np.isfinite(loudness) else -np.inf
    power = active_power(waveform, sample_rate) if measure == "active" else mean_square(waveform)
    return float(10.0 * np.log10(power)) if power > 0 else -np.inf


def mean_square(waveform):
    """Mean of the squares; 0 of nothing."""
    return float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0


def loudness_meter(sample_rate):
    """The meter of pyloudnorm, or one clear error."""
    try:
        import pyloudnorm
    except ImportError as error:
        raise ImportError(
            "loudness in LUFS needs the library pyloudnorm: pip install pyloudnorm, "
            "or choose --loudness rms"
        ) from error
    return pyloudnorm.Meter(sample_rate)


def active_power(waveform, sample_rate):
    """Mean power of the speech without its pauses (ITU-T P.56, method B).

    The signal is band-limited to 200 to 5500 Hz (the upper edge only where the sample rate has
    it). Its envelope is compared with thresholds 3 dB apart. The level is interpolated at which the
    speech lies 15.9 dB above the threshold that defines it. Filter, thresholds and the silence put
    after the end follow Voicebox' `activlev` (version of 2017), by which WSJ0-2mix was made.

    Arguments
    ---------
    waveform : np.ndarray
        Shape (samples,).
    sample_rate : int

    Returns
    -------
    power : float
        0 for silence.
    """
    after = np.zeros(ceil(SILENCE_SECONDS * sample_rate))
    speech = band_limit(np.concatenate([waveform, after]), sample_rate)
    energy = float(speech @ speech)
    decay = np.exp(-1.0 / (ENVELOPE_SECONDS * sample_rate))
    smoother = ([1.0 - decay], [1.0, -decay])
    envelope = lfilter(*smoother, lfilter(*smoother, np.abs(speech)))
    if not envelope.max() > 0:
        return 0.0
    hangover = ceil(HANGOVER_SECONDS * sample_rate)
    top = np.frexp(np.square(envelope.max()))[1]
    # From loud to quiet: the level that each threshold gives, and how much too far from it that is.
    thresholds = 2.0 ** (top - np.arange(1, THRESHOLDS + 1))
    counts = [active_samples(np.square(envelope) >= one, hangover) for one in thresholds]
    levels = 10 * np.log10(energy / np.array(counts))
    margins = levels - 10 * np.log10(thresholds) - MARGIN_DB
    crossings = np.flatnonzero((margins[:-1] < 0) & (margins[1:] >= 0))
    if len(crossings):
        here = slice(crossings[0], crossings[0] + 2)
        level = np.interp(0.0, margins[here], levels[here])
    else:
        level = levels[-1] if margins[-1] < 0 else levels[0]
    return float(10 ** (level / 10))


def active_samples(above, hangover):
    """How many samples are above the threshold, or less than the hangover after one that is."""
    index = np.arange(len(above))
    last = np.maximum.accumulate(np.where(above, index, -hangover - 1))
    return int(np.count_nonzero(index - last <= hangover))


def band_limit(waveform, sample_rate):
    """The band of P.56, by Chebyshev filters of the second kind that lose 0.25 dB at its edges."""
    # Such a filter of order 5 has its full attenuation of 50 dB from 0.4 times the edge on.
    edge = sample_rate / np.pi * np.arctan(0.3979 * np.tan(np.pi * BAND[0] / sample_rate))
    waveform = sosfilt(cheby2(5, 50, edge, "highpass", fs=sample_rate, output="sos"), waveform)
    if sample_rate > 14000:
        edge = sample_rate / np.pi * np.arctan(np.tan(np.pi * BAND[1] / sample_rate) / 0.3979)
        waveform = sosfilt(cheby2(5, 50, edge, fs=sample_rate, output="sos"), waveform)
    return waveform
