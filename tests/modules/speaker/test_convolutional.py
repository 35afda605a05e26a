"""The teachers' convolutional front-end: the transformers library's numbers, exact in any batch."""

import pytest
import torch

from modules.speaker.convolutional import ConvolutionalFrontEnd
from tests.support.speaker_networks import TEACHERS, build_teacher


@pytest.mark.parametrize("name", TEACHERS)
def test_features_and_weights_are_those_of_the_transformers_library(name):
    torch.manual_seed(0)
    network = build_teacher(name).double()
    ours = ConvolutionalFrontEnd({**TEACHERS[name], "do_normalize": False}).double()
    ours.load_state_dict(network.feature_extractor.state_dict(), strict=True)
    wavs = torch.randn(2, 4000, dtype=torch.float64)
    features, lengths = ours(wavs)
    torch.testing.assert_close(features, network.feature_extractor(wavs).transpose(1, 2))
    assert lengths.tolist() == [network._get_feat_extract_output_lengths(4000)] * 2


@pytest.mark.parametrize("name", ["wavlm-group", "wavlm-layer"])
def test_frames_do_not_depend_on_neighbours_in_the_batch(name):
    torch.manual_seed(1)
    front_end = ConvolutionalFrontEnd({**TEACHERS[name], "do_normalize": True}).double()
    for _ in range(50):
        samples = torch.randint(front_end.min_samples, 4001, (2,))
        wavs = torch.randn(2, int(samples.max()), dtype=torch.float64)
        together, lengths = front_end(wavs, samples)
        assert lengths.tolist() == front_end.frames(samples).tolist()
        for item, (count, length) in enumerate(zip(samples, lengths, strict=True)):
            alone, _ = front_end(wavs[item : item + 1, :count])
            torch.testing.assert_close(together[item, :length], alone[0])
            assert together[item, length:].abs().sum() == 0


def test_waveforms_are_normalised_over_their_own_samples():
    front_end = ConvolutionalFrontEnd(TEACHERS["wavlm-layer"])
    wavs, samples = torch.randn(2, 2000), torch.tensor([2000, 900])
    torch.testing.assert_close(front_end(5 * wavs + 2, samples), front_end(wavs, samples))


def test_published_crops_give_149_frames_and_the_first_frame_reads_400_samples():
    front_end = ConvolutionalFrontEnd({"conv_dim": [4] * 7})
    assert front_end.frames(48000) == 149
    assert (front_end.min_samples, front_end.frames(400), front_end.frames(399)) == (400, 1, 0)
    with pytest.raises(ValueError, match="399 samples is too short"):
        front_end(torch.randn(1, 399))


@pytest.mark.parametrize(
    "option, said",
    [
        ({"conv_dim": [8] * 6}, "one number for each layer; got 6, 7 and 7"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm must be group or layer; got 'batch'"),
        ({"feat_extract_activation": "mish"}, "feat_extract_activation must be one of gelu"),
    ],
)
def test_configurations_that_no_teacher_has_are_refused_by_name(option, said):
    with pytest.raises(ValueError, match=said):
        ConvolutionalFrontEnd(option)
