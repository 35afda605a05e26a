"""Resemblyzer's voice encoder: its features, its parts, and independence from neighbours in the batch."""

import numpy as np
import pytest
import torch

from modules.speaker.resemblyzer import VoiceEncoder, part_starts
from tests.support.speaker_networks import largest_shift


def mel_bands():
    """Slaney's mel bands (40, 201) of 400 points at 16 kHz, each of unit area in Hz."""

    def to_mel(hertz):
        linear, log = hertz / (200 / 3), 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4)
        return np.where(hertz < 1000, linear, log)

    grid = np.linspace(0, 8000, 400001)
    edges = np.interp(np.linspace(0, to_mel(np.array(8000.0)), 42), to_mel(grid), grid)
    bins = np.linspace(0, 8000, 201)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)


def reference_features(wav):
    """Power of each mel band (frames, 40), by its definition, of a waveform that is not raised."""
    padded = np.pad(wav, 200)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([padded[at : at + 400] for at in range(0, len(wav) + 1, 160)])
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return power @ mel_bands().T


def test_features_are_powers_of_slaney_s_mel_bands_with_zeros_around():
    wav = 0.1 * np.random.default_rng(0).standard_normal(25600)
    found = VoiceEncoder(8, 1)._cut(torch.from_numpy(wav).float())
    expected = reference_features(wav)[:160]
    assert found.shape[0] == 1
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=2e-3, atol=1e-5)


def test_an_utterance_is_the_mean_of_its_parts_and_the_last_is_filled_with_zeros():
    encoder, wav = VoiceEncoder(8, 1).eval(), torch.randn(1, 36000)
    assert part_starts(36000) == [0, 77]
    with torch.no_grad():
        whole = encoder(wav)
        first, second = encoder._cut(wav[0])
        _, (hidden, _) = encoder.lstm(torch.stack([first, second]))
        own = torch.nn.functional.normalize(encoder.linear(hidden[-1]).relu(), dim=1)
    mean = own.mean(0, keepdim=True)
    assert torch.allclose(whole, mean / mean.norm(), atol=1e-6)
    padded = torch.nn.functional.pad(wav, (0, (77 + 160) * 160 - 36000))
    assert torch.allclose(encoder.features(padded[0]).T[77:237], second / _gain(wav), rtol=1e-3)


def _gain(wav):
    """Factor of the power of a waveform that is raised to -30 dB."""
    return (1e-3 / wav.square().mean()).clamp(min=1.0)


def test_a_quiet_recording_is_raised_and_a_loud_one_is_left_as_it_is():
    encoder, wav = VoiceEncoder(8, 1).eval(), 0.01 * torch.randn(1, 30000)
    with torch.no_grad():
        assert torch.allclose(encoder(wav), encoder(0.1 * wav), atol=1e-5)
        assert not torch.allclose(encoder(50 * wav), encoder(100 * wav), atol=1e-5)


def test_a_padded_batch_equals_each_utterance_alone():
    assert largest_shift(VoiceEncoder(8, 1), pairs=6, longest=60000) < 1e-5


@pytest.mark.parametrize("name", ["lstm.weight_ih_l2", "linear.bias"])
def test_parameters_have_the_published_names_and_there_is_nothing_else(name):
    state = VoiceEncoder().state_dict()
    assert name in state and len(state) == 14 and sum(map(torch.numel, state.values())) == 1423616
