"""The streaming front-end: piece by piece what the whole gives, and no sample of the future."""

import pytest
import torch

from modules.causal_frontend import CausalFilterbankFeatures, stream_subsampling
from modules.frontend import ConvolutionSubsampling, FilterbankFeatures

BLOCKS = {"out_channels": (8, 4), "residuals": (False, False)}
# samples: less than a hop, on and off hops, frames that subsampling divides with every rest
COUNTS = (1, 159, 160, 161, 321, 640, 800, 960, 5000)


def front_end(**options):
    cnn = ConvolutionSubsampling((8, 10, 20), **BLOCKS).eval()
    return CausalFilterbankFeatures(n_mels=20, **options), cnn


def random_pieces(wavs, seed):
    """Cut waveforms into pieces of random lengths, among them none and single samples."""
    sizes, generator = torch.tensor([0, 1, 7, 100, 160, 500, 3000]), torch.Generator()
    generator.manual_seed(seed)
    while wavs.shape[1]:
        size = int(sizes[torch.randint(len(sizes), (), generator=generator)])
        yield wavs[:, :size]
        wavs = wavs[:, size:]


@pytest.mark.parametrize("options", [{}, {"n_fft": 512}, {"hop_length": 12.5}], ids=str)
def test_random_pieces_give_the_frames_of_the_whole(options):
    features, cnn = front_end(**options)
    for seed, count in enumerate(COUNTS):
        wavs = torch.randn(2, count)
        whole, lengths = features(wavs)
        subsampled, _ = cnn(whole, lengths)
        assert lengths.tolist() == [count // features.hop + 1] * 2 == [whole.shape[1]] * 2
        state, kept, frames, outputs = features.initial_state(2), None, [], []
        for piece in random_pieces(wavs, seed):
            new, state = features.forward_chunk(piece, state)
            frames.append(new)
            out, kept = stream_subsampling(cnn, new, kept)
            outputs.append(out)
        frames.append(features.finish(state))
        outputs.append(stream_subsampling(cnn, frames[-1], kept, last=True)[0])
        outputs = torch.cat([out for out in outputs if out is not None], 1)
        assert torch.allclose(torch.cat(frames, 1), whole, atol=1e-3)
        assert outputs.shape == subsampled.shape
        assert torch.allclose(outputs, subsampled, atol=1e-4)


def test_a_batch_gives_each_utterance_its_own_features():
    features, cnn = front_end()
    for _ in range(50):
        samples = torch.randint(1, 6000, (2,))
        wavs = torch.randn(2, int(samples.max()))
        together, lengths = features(wavs, samples=samples)
        outputs, counts = cnn(together, lengths)
        for item, count in enumerate(samples.tolist()):
            alone, own = features(wavs[item : item + 1, :count])
            assert alone.shape[1] == own.item() == lengths[item].item()
            assert torch.allclose(alone[0], together[item, : lengths[item]], atol=1e-3)
            out, _ = cnn(alone, own)
            assert torch.allclose(out[0], outputs[item, : counts[item]], atol=1e-4)


def test_a_subsampled_frame_reads_nothing_behind_its_own_span():
    features, cnn = front_end()
    wavs = torch.randn(1, 16000)
    span = 4 * features.hop
    for frame in (1, 5, 20):
        end = frame * span
        # silence would hide in the floor: the change is loud, so a floor of the whole would move all frames
        changed = torch.cat([wavs[:, :end], 100 * torch.randn(1, 16000 - end)], 1)
        moved = (cnn(features(wavs)[0])[0] - cnn(features(changed)[0])[0]).abs().amax((0, 2))
        assert not moved[:frame].any() and bool((moved[frame:] > 0).all())
        # the last sample of its span is heard
        wavs[:, end - 1] += 10
        heard = (cnn(features(changed)[0])[0] - cnn(features(wavs)[0])[0]).abs().amax((0, 2))
        assert heard[frame - 1] > 0


def test_the_floor_is_fixed_and_the_scale_is_that_of_other_recipes():
    features, other = front_end()[0], FilterbankFeatures(n_mels=20)
    assert features(torch.zeros(1, 3200))[0].unique().tolist() == [-60.0]
    wavs = torch.randn(1, 8000)
    level, wanted = features(wavs)[0].mean(), other(wavs)[0].mean()
    assert abs(level - wanted) < 1


def test_options_that_read_ahead_are_refused():
    with pytest.raises(ValueError, match="deltas"):
        CausalFilterbankFeatures(n_mels=20, deltas=True)
    with pytest.raises(ValueError, match="n_fft"):
        CausalFilterbankFeatures(n_mels=20, hop_length=30)
    cnn = ConvolutionSubsampling((8, 10, 20), strides=(2, 1), **BLOCKS)
    with pytest.raises(ValueError, match="strides of 2"):
        stream_subsampling(cnn, torch.randn(1, 4, 20))
