"""How many seconds of a recording are speech, by their energy: enough to refuse silence and clicks."""

import numpy as np

MIN_SPEECH_SECONDS = 0.5
FRAME_SECONDS = 0.02
# below the loud reference, and below the level of full scale, in dB
RANGE_DB, FLOOR_DB = 30.0, -70.0
# a louder sound that is shorter is a click
REFERENCE_SECONDS = 0.1


class SpeechMeter:
    """Count the seconds of speech in a recording that comes piece by piece.

    A frame of 20 ms is speech if its level is at most 30 dB below the loudest tenth of a second, and at least -70 dB
    of full scale. The mean of a frame does not count, so a constant offset is silence. Steady noise of that level
    counts as speech.

    Arguments
    ---------
    sample_rate : int
        Samples a second.

    Example
    -------
    >>> import torch
    >>> meter = SpeechMeter(8000)
    >>> meter.add(torch.cat([torch.zeros(8000), 0.1 * torch.randn(4000)]))
    >>> meter.seconds()
    0.5
    """

    def __init__(self, sample_rate):
        self.frame = round(FRAME_SECONDS * sample_rate)
        self._left = np.zeros(0, dtype=np.float32)
        self._powers = []

    def add(self, block):
        """Take one more piece (samples,), a tensor on the CPU."""
        samples = np.concatenate([self._left, block.numpy()])
        count = len(samples) // self.frame
        frames = samples[: count * self.frame].reshape(count, self.frame)
        powers = frames.var(axis=1, dtype=np.float64).clip(max=np.finfo(np.float32).max)
        self._powers.append(powers.astype(np.float32))
        self._left = samples[count * self.frame :]

    def seconds(self):
        """Seconds of speech so far."""
        powers = np.concatenate([np.zeros(1, np.float32), *self._powers])
        loud = min(len(powers), round(REFERENCE_SECONDS / FRAME_SECONDS))
        reference = np.partition(powers, -loud)[-loud]
        least = max(float(reference) * 10 ** (-RANGE_DB / 10), 10 ** (FLOOR_DB / 10))
        return round(float((powers >= least).sum()) * FRAME_SECONDS, 2)
