"""Generated noises: they are repeated by a seed, differ from clip to clip, and have the character of their kind."""

import pytest
import torch

from tests.support.keywords import RATE


@pytest.fixture
def noises(recipe):
    return recipe("noises")


def test_a_seed_repeats_a_noise_and_no_two_are_alike(noises):
    torch.manual_seed(3)
    made = [noises.generate_noise(RATE // 4, RATE) for _ in range(20)]
    torch.manual_seed(3)
    for index, one in enumerate(made):
        assert torch.equal(noises.generate_noise(RATE // 4, RATE), one)
        assert all(not torch.equal(one, other) for other in made[:index])


@pytest.mark.parametrize("samples, rate", [(1, 16000), (7, 8000), (333, 16000), (44100, 44100)])
def test_every_kind_has_the_wanted_length_and_no_samples_but_numbers(noises, samples, rate):
    torch.manual_seed(4)
    for kind in noises.KINDS:
        for _ in range(5):
            noise = kind(samples, rate)
            assert noise.shape == (samples,) and noise.isfinite().all()
    noise = noises.generate_noise(samples, rate)
    assert noise.isfinite().all() and float(noise.square().mean()) == pytest.approx(1, rel=1e-3)


def test_every_kind_but_the_steady_one_changes_along_a_clip(noises):
    torch.manual_seed(5)

    def median(kind, measure):
        return torch.tensor([measure(kind(RATE, RATE)) for _ in range(20)]).median()

    def bursts(noise):  # the loudest tenth of the frames of 10 ms
        energy = noise.view(100, -1).square().sum(1)
        return float(energy.topk(10).values.sum() / energy.sum())

    for kind in (noises.swelling, noises.pulsed, noises.tonal, noises.knocking):
        assert median(kind, bursts) > 1.3 * median(noises.steady, bursts)


def test_training_clips_get_generated_noise_at_the_wanted_ratio_and_read_none(recipe):
    add = recipe("waveforms").ClipAugmenter(
        RATE, background_probability=1, background_snr=(5.0, 5.0), background_generated=1.0
    )
    clip = torch.randn(RATE)
    added = add(clip) - clip
    ratio = 10 * torch.log10(clip.square().sum() / added.square().sum())
    assert float(ratio) == pytest.approx(5, abs=0.01)
    assert not torch.equal(add(clip) - clip, added)


def test_without_generated_noise_a_clip_is_what_the_seed_made_of_it_before(recipe):
    """The choice between made and recorded noise draws nothing where there is no choice."""
    noise, clip = torch.randn(3 * RATE), torch.randn(RATE)
    waveforms = recipe("waveforms")
    add = waveforms.ClipAugmenter(RATE, background_probability=1, noises=[noise])
    torch.manual_seed(6)
    got = add(clip)
    torch.manual_seed(6)
    torch.rand(())
    piece = waveforms.draw_piece([noise], RATE)
    ratio = 20 * torch.rand(())
    scale = clip.square().sum() / piece.square().sum() * 10 ** (-ratio / 10)
    torch.testing.assert_close(got, clip + piece * scale.sqrt())
