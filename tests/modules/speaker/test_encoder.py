"""Speaker encoders on filterbanks: exact in any batch, trained in float32 and bfloat16, refused input named."""

import numpy as np
import pytest
import torch
from scipy.fft import dct

from modules.speaker.encoder import BiMambaEncoder, MixerEncoder, SpeakerEncoder, TransformerEncoder
from modules.speaker.front_ends import FilterbankFrontEnd
from modules.speaker.pooling import AttentiveStatistics, CepstralStatistics
from tests.support.speaker_networks import largest_shift

KINDS = {
    "mamba": lambda: SpeakerEncoder(FilterbankFrontEnd(n_mels=24), BiMambaEncoder(16, 2), 8),
    "subsampled": lambda: SpeakerEncoder(
        FilterbankFrontEnd(n_mels=24, normalise_variance=True),
        BiMambaEncoder(16, 2),
        8,
        AttentiveStatistics(16),
        subsampling=3,
    ),
    "level": lambda: SpeakerEncoder(
        FilterbankFrontEnd(n_mels=24, remove_mean="level", normalise_variance=True),
        BiMambaEncoder(16, 1),
        8,
    ),
    "cepstral": lambda: SpeakerEncoder(
        FilterbankFrontEnd(n_mels=24, remove_mean="level"),
        BiMambaEncoder(16, 1),
        8,
        cepstral_statistics=20,
    ),
    "transformer": lambda: SpeakerEncoder(
        FilterbankFrontEnd(n_mels=24), TransformerEncoder(16, 2, n_heads=2), 8
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_does_not_depend_on_neighbours_in_the_batch(kind):
    torch.manual_seed(1)
    assert largest_shift(KINDS[kind]()) < 1e-5


def test_neighbours_change_nothing_beyond_rounding_in_float64():
    torch.manual_seed(1)
    assert largest_shift(KINDS["subsampled"]().double(), pairs=10) < 1e-12


def test_without_their_level_alone_features_keep_what_a_filter_adds_to_each_band():
    bands, level = (FilterbankFrontEnd(n_mels=24, remove_mean=one) for one in ("band", "level"))
    wavs, samples = torch.randn(1, 8000), torch.tensor([5000])
    features, lengths = level(wavs, samples)
    valid = features[:, : int(lengths)]
    assert features[:, int(lengths) :].abs().max() == 0 and valid.mean().abs() < 1e-4
    assert valid.mean(1).std() > 0.2
    torch.testing.assert_close(level(4 * wavs, samples)[0], features, atol=1e-3, rtol=0)
    own = valid - valid.mean(1, keepdim=True)
    torch.testing.assert_close(bands(wavs, samples)[0][:, : int(lengths)], own, atol=1e-4, rtol=0)
    scaled, _ = FilterbankFrontEnd(n_mels=24, remove_mean="level", normalise_variance=True)(wavs)
    assert torch.allclose(scaled.std(1, unbiased=False), torch.ones(24), atol=1e-3)
    with pytest.raises(ValueError, match="remove_mean must be band or level"):
        FilterbankFrontEnd(remove_mean="all")


def test_features_ignore_gain_and_what_lies_behind_the_end():
    front_end = FilterbankFrontEnd(n_mels=24)
    wavs, samples = torch.randn(1, 8000), torch.tensor([5000])
    features, lengths = front_end(wavs, samples)
    assert lengths.tolist() == [32]
    assert features[:, 32:].abs().max() == 0
    assert features[:, :32].mean(1).abs().max() < 1e-4
    wavs[:, 5000:] = torch.nan
    torch.testing.assert_close(front_end(wavs, samples)[0], features)
    torch.testing.assert_close(front_end(wavs * 8, samples)[0], features, atol=1e-4, rtol=0)


def test_a_loud_sound_leaves_the_differences_between_other_frames_as_they_were():
    front_end = FilterbankFrontEnd(n_mels=24)
    wavs = 1e-3 * torch.randn(1, 8000)
    quiet, _ = front_end(wavs)
    wavs[:, 6000:] += 1e4 * torch.randn(1, 2000)
    loud, _ = front_end(wavs)
    torch.testing.assert_close(
        loud[:, 5] - loud[:, 9], quiet[:, 5] - quiet[:, 9], atol=1e-4, rtol=0
    )
    silence, _ = front_end(torch.cat([torch.randn(1, 4000), torch.zeros(1, 4000)], 1))
    assert (silence.amax(1) - silence.amin(1)).max() < 24


@pytest.mark.parametrize("encoder", [BiMambaEncoder(8, 2), TransformerEncoder(8, 2, n_heads=2)])
def test_encoders_give_zeros_behind_each_end(encoder):
    lengths = torch.tensor([9, 4])
    x = torch.randn(2, 9, 8)
    x[1, 4:] = torch.nan
    out = encoder(x, lengths)
    assert out.isfinite().all() and out[1, 4:].abs().max() == 0 and out[1, :4].abs().min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_in_float32_and_under_bfloat16_autocast(kind):
    torch.manual_seed(2)
    model = KINDS[kind]()
    wavs, samples = torch.randn(3, 6000), torch.tensor([6000, 400, 3100])
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            embedding = model(wavs, samples)
        embedding.float().square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            # a softmax over frames does not see what is added to all scores
            assert name == "pooling.score.2.bias" or parameter.grad.abs().max() > 0, name


def test_too_short_an_utterance_and_impossible_sizes_are_refused_by_name():
    model = KINDS["mamba"]()
    assert model.min_samples == 400
    assert model(torch.randn(1, 400)).isfinite().all()
    with pytest.raises(ValueError, match="399 samples is too short.*400"):
        model(torch.randn(2, 800), torch.tensor([800, 399]))
    for wrong in (torch.randn(1, 800, 1), torch.ones(1, 800, dtype=torch.int16)):
        with pytest.raises(ValueError, match=r"floating numbers of the shape \(batch, samples\)"):
            model(wrong)
    with pytest.raises(ValueError, match="lengths must be an integer tensor"):
        model(torch.randn(1, 800), torch.tensor([1.0]))
    with pytest.raises(ValueError, match="subsampling must be 1"):
        SpeakerEncoder(FilterbankFrontEnd(), BiMambaEncoder(16, 1), subsampling=0)
    with pytest.raises(ValueError, match="n_heads"):
        TransformerEncoder(18, 1, n_heads=2)


def test_cepstral_statistics_are_the_moments_of_scipys_cepstra_over_valid_frames():
    torch.manual_seed(1)
    statistics = CepstralStatistics(24, n_cepstra=20, output_size=60).eval()
    statistics.embed.weight.data = torch.eye(60)
    statistics.embed.bias.data.zero_()
    x = torch.randn(2, 30, 24)
    got = statistics(x, torch.tensor([30, 17]))
    for row, n in zip(range(2), (30, 17), strict=True):
        cepstra = dct(x[row, :n].double().numpy(), norm="ortho")[:, :20]
        change = cepstra[2:] - cepstra[:-2]
        want = np.concatenate([cepstra.mean(0), cepstra.std(0), change.std(0)])
        assert np.abs(got[row].detach().numpy() - want).max() < 1e-4
    # one frame has no difference
    assert torch.isfinite(statistics(x, torch.tensor([1, 2]))).all()
    with pytest.raises(ValueError, match="set batch_size to 2 or more"):
        statistics.train()(x[:1])
    with pytest.raises(ValueError, match="from 1 to the 24 mel bands, or 0"):
        CepstralStatistics(24, 25, 8)


def test_sv_mixer_on_filterbanks_takes_crops_of_one_length_and_refuses_others():
    torch.manual_seed(1)

    def build(n_frames, **options):
        encoder = MixerEncoder(16, n_layers=2, n_frames=n_frames)
        return SpeakerEncoder(FilterbankFrontEnd(n_mels=24), encoder, 8, subsampling=4, **options)

    model = build(26, crop_seconds=1.0).eval()
    assert model.crop_samples == model.min_samples == 16000
    wavs = torch.randn(3, 16000)
    torch.testing.assert_close(model(wavs)[1:2], model(wavs[1:2]), atol=1e-5, rtol=0)
    for n in (15000, 17000):
        with pytest.raises(ValueError, match=f"exactly 16000 samples; got {n}"):
            model(torch.randn(1, n), torch.tensor([n]))
    with pytest.raises(ValueError, match="1.5 s have 38 frames .* set n_frames to 38"):
        build(26, crop_seconds=1.5)
    with pytest.raises(ValueError, match="needs crop_seconds"):
        build(26)
    with pytest.raises(ValueError, match="layer must be one of sv_mixer"):
        MixerEncoder(16, layer="mixer")
