"""Waveforms as 16-bit samples."""

import numpy as np


def to_pcm16(waveform):
    """The nearest 16-bit samples of ``waveform``, values in -1..1 (and clipped to it), of any shape.

    libsndfile, given the values themselves, rounds down in WAV files: half a step of offset.

    Example
    -------
    >>> import numpy as np
    >>> to_pcm16(np.array([1.6, -1.6]) / 32768).tolist()
    [2, -2]
    """
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)
