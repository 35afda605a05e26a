"""Rooms and levels for training clips: what lies between a mouth and a recording.

Source: an impulse response of decaying noise is the model of Polack, "La transmission de l'energie sonore dans les
salles" (1988), as in Moorer, "About this reverberation business" (Computer Music Journal, 1979).
"""

import torch

# seconds in which the sound of a room falls by 60 dB, and direct sound over the rest in dB
DECAY, DIRECT_DB = (0.1, 0.7), (-3.0, 15.0)
# the first reflections of a small room arrive after so many seconds
FIRST_REFLECTION = 0.003


def draw_between(low, high):
    """A random number between two."""
    return low + (high - low) * float(torch.rand(()))


def draw_room(sample_rate):
    """A random impulse response, (samples,): the direct sound, which is 1, and noise that decays behind it.

    Example
    -------
    >>> room = draw_room(16000)
    >>> float(room[0]), 1600 <= len(room) <= 11200
    (1.0, True)
    """
    length = round(draw_between(*DECAY) * sample_rate)
    tail = torch.randn(length) * 10 ** (-3 * torch.arange(length) / length)
    tail[: round(FIRST_REFLECTION * sample_rate)] = 0
    tail *= 10 ** (-draw_between(*DIRECT_DB) / 20) / tail.square().sum().sqrt()
    tail[0] = 1
    return tail


def reverberate(waveform, room):
    """A waveform (samples,) in a room, as loud as before; what rings on behind its end is cut off.

    Example
    -------
    >>> import torch
    >>> reverberate(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])).round(decimals=2).tolist()
    [0.89, 0.0, 0.45]
    """
    size = 1 << (len(waveform) + len(room) - 1).bit_length()
    spectrum = torch.fft.rfft(waveform, size) * torch.fft.rfft(room, size)
    heard = torch.fft.irfft(spectrum, size)[: len(waveform)]
    return heard * (waveform.square().sum() / heard.square().sum().clamp(min=1e-10)).sqrt()
