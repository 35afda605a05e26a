"""Fourier filters for the encoder and decoder of a separation network to begin with.

Learnt from chance, filters of tens of milliseconds take most of a short training to become a spectrum. A bank whose
filters come in several phases suits an encoder that lets only positive values through (Ditter and Gerkmann, "A
multi-phase gammatone filterbank for speech separation via TasNet", arXiv 1910.11615, section 3).
"""

import math

import torch

ENCODER_INITS = ("random", "fourier")


@torch.no_grad()
def set_fourier_filters_(encoder, decoder):
    """Give both the same windowed cosines and sines, each with either sign.

    Frequencies are spaced evenly up to half the sample rate, the first half a step above 0; the window is the square
    root of Hann's. With as many frequencies as the stride has samples, or more, and masks of 1, the decoder gives back
    what the encoder was given. Training goes on from there: nothing is frozen.

    Arguments
    ---------
    encoder : speechbrain.lobes.models.dual_path.Encoder
    decoder : speechbrain.lobes.models.dual_path.Decoder

    Raises
    ------
    ValueError
        If the channels are not four a frequency.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.models.dual_path import Decoder, Encoder
    >>> encoder, decoder = Encoder(32, 64), Decoder(64, 1, 32, stride=16, bias=False)
    >>> set_fourier_filters_(encoder, decoder)
    >>> wave = torch.randn(2, 320)
    >>> bool((decoder(encoder(wave)) - wave)[:, 16:-16].abs().max() < 1e-5)
    True
    """
    channels, _, size = encoder.conv1d.weight.shape
    if channels % 4:
        raise ValueError(
            "encoder_init fourier needs N_encoder_out to be a multiple of 4, for a cosine and a sine of either sign at "
            f"each frequency; got {channels}"
        )
    count = channels // 4
    time = torch.arange(size, dtype=torch.float64)
    frequencies = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count)
    angles = frequencies[:, None] * time
    window = torch.hann_window(size, dtype=torch.float64).sqrt()
    waves = torch.stack([angles.cos(), angles.sin()], dim=1) * window
    # more frequencies than the window tells apart are a frame of the same energy
    waves = waves * math.sqrt(1 / count)
    filters = torch.stack([waves, -waves], dim=2).reshape(channels, 1, size)
    encoder.conv1d.weight.copy_(filters)
    decoder.weight.copy_(filters)
