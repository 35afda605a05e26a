"""Keyword features: the published numbers, every clip by itself, and a stream equal to the whole."""

import pytest
import torch
from speechbrain.dataio import audio_io

from modules.kws.features import LEVELS, KeywordFeatures, WaveToSpec
from tests.support.golden import Golden, decibel_tolerance

RAW = {"mean": 0.0, "std": 1.0}
SMALL = {"n_mels": 20, "n_mfcc": 10, "n_fft": 256, "hop_length": 64, **RAW}


def with_filters(features, golden):
    """``features`` with the recorded mel filters; their own rounding would move a tone at a filter's edge."""
    features.mel.mel_scale.fb.copy_(golden["buffer/mel_fb_128x1025"].T)
    return features


def compare_features(golden, kind, value):
    """Compare (batch, 1, features, time) with the record: bands in dB, or their cepstrum."""
    if kind == "mel":
        return golden.compare_decibels("output/mel_db", value, dim=2)
    # The DCT is orthonormal, so a coefficient moves by at most the norm of what a frame's bands move by.
    bands = decibel_tolerance(golden["output/mel_db"], dim=2).norm(dim=2, keepdim=True)
    sums = 2e-6 * golden["output/mfcc"].abs().max()  # of 128 terms each, in float32
    golden.compare_within("output/mfcc", value, bands + sums)


def test_golden_mel_and_mfcc_with_their_filters():
    with Golden("frontend_kws") as golden:
        wav = golden["input/wav"]
        mel, mfcc = WaveToSpec("mel"), WaveToSpec("mfcc")
        # A filter's edge at 8 kHz is rounded to 3 mHz, and two of them bound a slope of 170 Hz.
        filters = mel.features.mel.mel_scale.fb.T
        golden.compare("buffer/mel_fb_128x1025", filters, tolerance=3e-5)
        golden.compare("buffer/dct_128x40", mfcc.features.dct)
        for kind, frontend in (("mel", mel), ("mfcc", mfcc)):
            with_filters(frontend.features, golden)
            compare_features(golden, kind, frontend(wav.unsqueeze(1)))


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_golden_features_come_out_of_the_batched_front_end_too(kind):
    golden = Golden("frontend_kws")
    frontend = with_filters(KeywordFeatures(kind, **RAW), golden)
    features, lengths = frontend(golden["input/wav"])
    compare_features(golden, kind, features.transpose(1, 2).unsqueeze(1))
    assert lengths.tolist() == [63, 63, 63]


def test_the_published_front_end_takes_one_clip_and_many():
    frontend = WaveToSpec(n_mels=16, n_fft=256, hop_length=64)
    wavs = torch.randn(3, 1, 2000) * torch.tensor([1e-4, 1.0, 1e2]).view(3, 1, 1)
    many = frontend(wavs)
    assert many.shape == (3, 1, 16, 32)
    for clip, features in zip(wavs, many, strict=True):
        # each clipped below its own maximum, however loud the others are
        assert torch.allclose(frontend(clip), features, atol=1e-4)
        assert torch.allclose(frontend(clip[0]), features, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_a_padded_batch_gives_each_clip_what_it_gives_alone(kind, causal):
    torch.manual_seed(1)
    features = KeywordFeatures(kind, causal=causal, top_db=10.0, **SMALL)
    for _ in range(50):
        samples = torch.randint(1, 3000, (2,))
        wavs = torch.randn(2, int(samples.max())) * torch.tensor([[1.0], [1e-4]])
        for item, count in enumerate(samples.tolist()):
            wavs[item, count:] = 100.0  # whatever stands behind the end
        batch, lengths = features(wavs, samples)
        for item, count in enumerate(samples.tolist()):
            alone, own = features(wavs[item : item + 1, :count])
            assert alone.shape[1] == own.item() == lengths[item].item() == features.frames(count)
            assert torch.allclose(alone[0], batch[item, : lengths[item]], atol=1e-3)
            assert not batch[item, lengths[item] :].any()


def test_clips_shorter_than_the_window_are_reflected_again_and_again():
    features = KeywordFeatures(**SMALL)
    clip = torch.randn(1, 5)
    cycle = torch.cat([clip, clip[:, 1:4].flip(1)], 1)  # 0 1 2 3 4 3 2 1
    long = cycle.repeat(1, 64)
    # frame 4 of the long clip is centred on a start of the cycle, away from its edges
    assert torch.allclose(features(clip)[0][:, 0], features(long)[0][:, 4], atol=1e-3)


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_a_stream_in_chunks_gives_the_features_of_the_whole(kind):
    torch.manual_seed(2)
    features = KeywordFeatures(kind, causal=True, **SMALL)
    wavs = torch.randn(2, 64 * 40)
    whole, _ = features(wavs)
    state, parts = features.initial_state(2), []
    for chunk in wavs.split([1, 63, 64, 10, 700, 0, 500, 1222], 1):
        part, state = features.forward_chunk(chunk, state)
        parts.append(part)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-3)


def test_causal_features_ignore_later_samples_and_centred_ones_do_not():
    wavs = torch.randn(1, 64 * 30)
    louder = wavs.clone()
    louder[:, 64 * 20 :] *= 1e3
    for causal in (True, False):
        features = KeywordFeatures(causal=causal, **SMALL)
        before, after = features(wavs)[0][:, :20], features(louder)[0][:, :20]
        assert torch.equal(before, after) == causal


def test_the_causal_floor_is_fixed_and_the_other_follows_the_clip():
    quiet = torch.randn(1, 4000) * 1e-7
    assert (KeywordFeatures(causal=True, floor_db=-40.0, **SMALL)(quiet)[0] == -40.0).all()
    features = KeywordFeatures(top_db=10.0, **SMALL)(torch.randn(1, 4000))[0]
    assert torch.isclose(features.min(), features.max() - 10.0)


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_features_are_normalised_by_the_level_given_or_by_that_of_the_corpus(kind):
    wavs, options = torch.randn(1, 4000), SMALL | {"mean": 3.0, "std": 2.0}
    raw = KeywordFeatures(kind, **SMALL)(wavs)[0]
    assert torch.allclose(KeywordFeatures(kind, **options)(wavs)[0], (raw - 3) / 2, atol=1e-4)
    options |= {"mean": None, "std": None}
    mean, std = LEVELS[kind]
    assert torch.allclose(KeywordFeatures(kind, **options)(wavs)[0], (raw - mean) / std, atol=1e-4)


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_the_default_level_is_that_of_real_commands(kind, data):
    clips = sorted(data("speech_commands").glob("[a-z]*/*.wav"))[::4]
    features = KeywordFeatures(kind)
    values = torch.cat([features(audio_io.load(str(clip))[0])[0][0] for clip in clips])
    assert len(clips) > 20 and abs(values.mean()) < 0.15 and abs(values.std() - 1) < 0.15


def test_features_stay_float32_under_autocast():
    features, wavs = KeywordFeatures("mfcc", **SMALL), torch.randn(1, 4000)
    with torch.autocast("cpu", torch.bfloat16):
        cast = features(wavs)[0]
    assert cast.dtype == torch.float32 and torch.equal(cast, features(wavs)[0])


def test_bad_options_and_clips_without_samples_are_refused_by_name():
    with pytest.raises(ValueError, match="kind must be one of mel, mfcc; got 'spectrum'"):
        KeywordFeatures("spectrum")
    with pytest.raises(ValueError, match="hop_length must lie in 1..n_fft"):
        KeywordFeatures(n_fft=256, hop_length=512)
    with pytest.raises(ValueError, match="n_mfcc must lie in 1..n_mels"):
        KeywordFeatures("mfcc", n_mels=20, n_mfcc=40)
    with pytest.raises(ValueError, match="std must be positive"):
        KeywordFeatures(std=0)
    features = KeywordFeatures(**SMALL)
    with pytest.raises(ValueError, match="without samples"):
        features(torch.randn(2, 100), torch.tensor([100, 0]))
    with pytest.raises(ValueError, match="without samples"):
        features(torch.randn(2, 0))
    with pytest.raises(ValueError, match="lengths must lie in 0..100"):
        features(torch.randn(2, 100), torch.tensor([100, 101]))
    with pytest.raises(ValueError, match="build them with causal=True"):
        features.initial_state(1)


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_without_their_mean_features_forget_level_and_channel_and_padding(kind):
    torch.manual_seed(7)
    features = KeywordFeatures(kind, mean_norm=True, **SMALL)
    wavs, samples = 0.1 * torch.randn(3, 4000), torch.tensor([4000, 2500, 1])
    x, lengths = features(wavs, samples)
    for row, count in enumerate(samples.tolist()):
        alone, frames = features(wavs[row : row + 1, :count])
        assert frames[0] == lengths[row]
        assert torch.allclose(x[row, : lengths[row]], alone[0], atol=1e-3)
        assert alone.mean(1).abs().max() < 1e-3 and not x[row, lengths[row] :].any()
    louder, _ = features(4 * wavs, samples)
    assert torch.allclose(louder, x, atol=1e-2)
    plain, _ = KeywordFeatures(kind, **SMALL)(wavs, samples)
    assert not torch.allclose(plain, x, atol=1)
    with pytest.raises(ValueError, match="set one of them"):
        KeywordFeatures(kind, causal=True, mean_norm=True)
