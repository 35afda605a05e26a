"""Features and subsampling: SpeechBrain's numbers, and every utterance ending at its own end."""

import pytest
import torch
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd

from modules.asr.normalization import GlobalNormalization
from modules.frontend import ConvolutionSubsampling, FilterbankFeatures
from modules.lengths import relative_lengths, sample_counts
from tests.support.golden import Golden

BLOCKS = {
    "num_blocks": 2,
    "num_layers_per_block": 1,
    "out_channels": (8, 4),
    "kernel_sizes": (3, 3),
    "strides": (2, 2),
    "residuals": (False, False),
}


def test_golden_filterbanks_and_normalisation():
    with Golden("frontend_asr_fbank") as golden:
        wav, lens = golden["input/wav"], golden["input/wav_lens"]
        for name, options in golden.meta["fbank"].items():
            fbank = FilterbankFeatures(**options)
            # upstream computes features of the padding too, so the whole batch is compared
            golden.compare_decibels(f"output/fbank_{name}", fbank(wav, torch.ones(2))[0], dim=2)
        # of the recorded features, so that no rounding of an FFT is in what follows
        y = golden["output/fbank_small_nfft400_win25"]
        for version, fidelity in (("sb110", "corrected"), ("sb100", "upstream")):
            normalize = GlobalNormalization(fidelity=fidelity)
            first, second = normalize(y, lens, epoch=1), normalize(1.3 * y + 2, lens, epoch=1)
            golden.compare(f"output/{version}_norm_train_call1", first)
            golden.compare(f"output/{version}_norm_train_call2", second)
            golden.compare(f"output/{version}_norm_eval", normalize.eval()(y, lens))
            golden.compare(f"output/{version}_glob_mean", normalize.glob_mean)
            golden.compare(f"output/{version}_glob_std", normalize.glob_std)


@pytest.mark.parametrize("hop_length", [10, 12.5])
def test_a_batch_gives_each_utterance_its_own_features(hop_length):
    fbank = FilterbankFeatures(n_mels=20, hop_length=hop_length)
    for _ in range(50):
        samples = torch.randint(200, 8000, (2,))
        wavs = torch.randn(2, int(samples.max()))
        features, lengths = fbank(wavs, samples / wavs.shape[1])
        for item, count in enumerate(samples.tolist()):
            alone, own = fbank(wavs[item : item + 1, :count], torch.ones(1))
            assert alone.shape[1] == own.item() == lengths[item].item()
            assert torch.allclose(alone[0], features[item, : lengths[item]], atol=1e-3)


def test_without_lengths_every_utterance_fills_its_row():
    features, wavs = FilterbankFeatures(n_mels=20), torch.randn(2, 4000)
    found, wanted = features(wavs), features(wavs, torch.ones(2))
    assert torch.equal(found[0], wanted[0]) and found[1].tolist() == wanted[1].tolist()


def test_relative_lengths_give_the_counts_back_to_every_consumer():
    for time in (1, 2, 3, 997, 3500):
        lengths = torch.arange(1, time + 1)
        relative = relative_lengths(lengths, time)
        assert torch.equal((relative * time).round().long(), lengths)
        # SpeechBrain's InputNormalization compares instead of rounding
        mask = torch.arange(time)[None] < (relative * time - 1e-6)[:, None]
        assert torch.equal(mask.sum(1), lengths)
    samples = torch.randint(1, 500_000, (1000,))
    assert torch.equal(sample_counts(samples / 500_000, 500_000), samples)


def test_subsampling_equals_speechbrain_for_utterances_of_one_length():
    theirs = ConvolutionFrontEnd((8, 10, 20), **BLOCKS).eval()
    ours = ConvolutionSubsampling((8, 10, 20), **BLOCKS).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for time in (4, 7, 30, 41):
        x = torch.randn(2, time, 20)
        expected = theirs(x).flatten(2)
        assert torch.allclose(ours(x)[0], expected, atol=1e-6)
        out, lengths = ours(x, torch.tensor([time, time]))
        assert torch.allclose(out, expected, atol=1e-6)
        assert lengths.tolist() == [expected.shape[1]] * 2


def test_subsampling_pads_each_utterance_at_its_own_end():
    cnn = ConvolutionSubsampling((8, 10, 20), **BLOCKS).eval()
    for _ in range(50):
        counts = torch.randint(1, 40, (2,))
        x = torch.randn(2, int(counts.max()), 20)
        x[torch.arange(x.shape[1]) >= counts[:, None]] = float("nan")
        out, lengths = cnn(x, counts)
        for item, count in enumerate(counts.tolist()):
            alone, own = cnn(x[item : item + 1, :count], torch.tensor([count]))
            assert alone.shape[1] == own.item() == lengths[item].item()
            assert torch.allclose(alone[0], out[item, : lengths[item]], atol=1e-5)


def test_subsampling_refuses_blocks_of_another_shape():
    with pytest.raises(ValueError, match="kernel 3"):
        ConvolutionSubsampling((8, 10, 20), **BLOCKS | {"kernel_sizes": (5, 3)})


def test_golden_subsampling_of_the_published_pipeline():
    golden = Golden("pipeline_s2s_mamba")
    cnn = ConvolutionSubsampling((8, 10, 80), **BLOCKS | {"out_channels": (64, 32)}).eval()
    cnn.load_state_dict(golden.state_dict("CNN."), strict=True)
    out, _ = cnn(golden["input/feats"])
    golden.compare("output/cnn", out.view(golden["output/cnn"].shape))
