"""What happens to speech on its way to the file: resampling, trimming, a room, noise, level.

Every function takes and returns one float waveform of shape (samples,). Random choices come from
the generator that the caller passes, so that an utterance is the same whenever it is made.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np
from scipy.signal import fftconvolve, resample_poly

# Spectral slopes of the noises: power falls with frequency to this exponent.
NOISE_COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}


@dataclass(frozen=True)
class Scene:
    """The acoustics of one utterance.

    Arguments
    ---------
    level_db : float
        Root mean square level of the speech in dB below full scale.
    rt60 : float, optional
        Reverberation time in seconds; None for no room.
    direct_db : float
        Level of the direct sound over the reverberation in dB.
    snr_db : float, optional
        Speech over noise in dB; None for no noise.
    colour : str
        A key of `NOISE_COLOURS`.
    """

    level_db: float
    rt60: float | None = None
    direct_db: float = 0.0
    snr_db: float | None = None
    colour: str = "pink"


def draw_scene(random, noise=True):
    """Draw the acoustics of one utterance: half of them in a room, four in five with noise.

    Arguments
    ---------
    random : np.random.Generator
    noise : bool
        False for clean, dry speech; only the level then varies.

    Returns
    -------
    scene : Scene
    """
    level_db = round(float(random.uniform(-30, -20)), 1)
    in_room, noisy = random.random(2) < (0.5, 0.8)
    rt60 = round(float(random.uniform(0.1, 0.4)), 2)
    direct_db = round(float(random.uniform(4, 15)), 1)
    snr_db = round(float(random.uniform(12, 35)), 1)
    colour = str(random.choice(list(NOISE_COLOURS)))
    if not noise:
        return Scene(level_db)
    return Scene(level_db, rt60 if in_room else None, direct_db, snr_db if noisy else None, colour)


def apply_scene(waveform, sample_rate, scene, random):
    """Put clean speech into a scene; the length stays, the peak never passes 0.95.

    Arguments
    ---------
    waveform : np.ndarray
        Shape (samples,), clean speech.
    sample_rate : int
    scene : Scene
    random : np.random.Generator
        Source of the room's and the noise's fine structure.

    Returns
    -------
    waveform : np.ndarray
        Shape (samples,), float32.
    """
    if scene.rt60 is not None:
        waveform = reverberate(waveform, sample_rate, scene.rt60, scene.direct_db, random)
    waveform = waveform * (10 ** (scene.level_db / 20) / max(rms(waveform), 1e-8))
    if scene.snr_db is not None:
        noise = coloured_noise(len(waveform), NOISE_COLOURS[scene.colour], random)
        waveform = waveform + noise * 10 ** ((scene.level_db - scene.snr_db) / 20)
    peak = np.abs(waveform).max()
    if peak > 0.95:
        waveform = waveform * (0.95 / peak)
    return waveform.astype(np.float32)


def resample(waveform, from_rate, to_rate):
    """Change the sample rate (Hz), with a polyphase filter."""
    common = gcd(from_rate, to_rate)
    return resample_poly(waveform, to_rate // common, from_rate // common)


def trim_silence(waveform, sample_rate, keep=0.05, threshold_db=-45.0):
    """Cut the silence at both ends.

    Arguments
    ---------
    waveform : np.ndarray
        Shape (samples,).
    sample_rate : int
    keep : float
        Seconds of silence to leave at each end.
    threshold_db : float
        Frames of 10 ms this far below the loudest one are silent.

    Returns
    -------
    waveform : np.ndarray
        Shape (fewer samples,); empty if there is no sound at all.
    """
    frame = sample_rate // 100
    frames = len(waveform) // frame
    energy = np.square(waveform[: frames * frame]).reshape(frames, frame).mean(axis=1)
    loud = np.flatnonzero(energy > max(energy.max(initial=0.0) * 10 ** (threshold_db / 10), 1e-12))
    if len(loud) == 0:
        return waveform[:0]
    margin = int(keep * sample_rate)
    return waveform[max(loud[0] * frame - margin, 0) : (loud[-1] + 1) * frame + margin]


def reverberate(waveform, sample_rate, rt60, direct_db, random):
    """Add a room: a direct sound, and noise that decays exponentially behind it.

    The response falls by 60 dB in `rt60` seconds. The direct sound's energy lies `direct_db` above
    the energy of the rest. The tail beyond the waveform's end is cut off.
    """
    length = max(int(rt60 * sample_rate), 1)
    tail = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    # The first reflections of a small room arrive after a few milliseconds.
    tail[: int(0.003 * sample_rate)] = 0
    tail *= 10 ** (-direct_db / 20) / max(np.sqrt(np.square(tail).sum()), 1e-8)
    tail[0] = 1
    return fftconvolve(waveform, tail)[: len(waveform)]


def coloured_noise(length, slope, random):
    """Noise of root mean square 1 whose power falls with frequency to the exponent `slope`."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    # The lowest bins are levelled: below some 30 Hz there is nothing to hear.
    bins = np.maximum(np.arange(len(spectrum)), max(length // 500, 1))
    noise = np.fft.irfft(spectrum * bins ** (-slope / 2), n=length)
    return noise / max(rms(noise), 1e-8)


def rms(waveform):
    """Root mean square of a waveform."""
    return float(np.sqrt(np.square(waveform).mean()))
