"""The Fourier filters that encoder and decoder may begin with."""

import pytest
import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder

from modules.separation.filterbank import set_fourier_filters_
from modules.separation.mask_net import MaskNet
from modules.separation.separator import SeparationNetwork


def make_pair(kernel_size, channels):
    return (
        Encoder(kernel_size, channels),
        Decoder(channels, 1, kernel_size, stride=kernel_size // 2, bias=False),
    )


@pytest.mark.parametrize(("kernel_size", "channels"), [(16, 32), (16, 64), (256, 512)])
def test_with_masks_of_one_the_decoder_returns_what_the_encoder_was_given(kernel_size, channels):
    torch.manual_seed(0)
    encoder, decoder = make_pair(kernel_size, channels)
    set_fourier_filters_(encoder, decoder)
    wave = torch.randn(2, 10 * kernel_size)
    edge = kernel_size // 2
    returned = decoder(encoder(wave))
    assert torch.allclose(returned[:, edge:-edge], wave[:, edge:-edge], atol=1e-5)


def test_a_tone_is_loudest_in_the_filters_of_its_frequency():
    encoder, decoder = make_pair(256, 512)
    set_fourier_filters_(encoder, decoder)
    # filter 20 of 128 that cover 4 kHz
    tone = torch.sin(torch.arange(2048) * torch.pi * 20.5 / 128).unsqueeze(0)
    spectrum = encoder(tone).mean(dim=2).view(128, 4).sum(dim=1)
    assert spectrum.argmax() == 20
    assert spectrum[20] > 5 * spectrum[25]


def test_the_filters_stay_learnable():
    separator = SeparationNetwork(*parts(), encoder_init="fourier")
    separator(torch.randn(1, 400)).square().sum().backward()
    assert separator.encoder.conv1d.weight.grad.abs().sum() > 0
    assert separator.decoder.weight.grad.abs().sum() > 0


def parts():
    encoder, decoder = make_pair(16, 32)
    return encoder, MaskNet(enc_dim=32, bot_dim=8, n_spk=2, n_mamba=1), decoder


def test_random_filters_are_left_as_they_are():
    encoder, masknet, decoder = parts()
    before = encoder.conv1d.weight.clone()
    assert torch.equal(SeparationNetwork(encoder, masknet, decoder).encoder.conv1d.weight, before)


def test_channels_that_are_not_four_a_frequency_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        set_fourier_filters_(*make_pair(16, 30))


def test_an_unknown_beginning_is_refused():
    with pytest.raises(ValueError, match="encoder_init"):
        SeparationNetwork(*parts(), encoder_init="dct")
