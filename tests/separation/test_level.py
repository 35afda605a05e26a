"""Separated sources get the level that they have in the mixture, whatever level and sign the network gave them."""

import pytest
import torch

from modules.separation import fit_to_mixture


def voices(speakers=2, batch=3, time=400):
    return 0.1 * torch.randn(batch, time, speakers)


@pytest.mark.parametrize("speakers", [1, 2, 3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_level_and_common_sign_are_restored_whatever_they_were(speakers, sign):
    sources = voices(speakers)
    levels = sign * torch.tensor([1e4, 1e-4, 3.0])[:speakers]
    fitted = fit_to_mixture(sources * levels, sources.sum(2))
    assert torch.allclose(fitted, sources, atol=1e-5)
    again = fit_to_mixture(sources[0] * levels, sources[0].sum(1))
    assert torch.allclose(again, fitted[0], atol=1e-6)


def test_imperfect_estimates_sum_as_near_to_the_mixture_as_one_sign_allows():
    sources = voices()
    mix = sources.sum(2)
    estimates = sources + 0.3 * sources.flip(2) + 0.02 * torch.randn_like(sources)
    fitted = fit_to_mixture(estimates, mix)
    wanted = torch.linalg.lstsq(estimates, mix.unsqueeze(2)).solution
    assert (wanted > 0).all()
    assert torch.allclose(fitted, estimates * wanted.mT, atol=1e-5)


def test_no_source_is_subtracted_from_the_others():
    sources = voices()
    mix = sources[..., 0] - 0.4 * sources[..., 1]
    fitted = fit_to_mixture(sources, mix)
    gains = (fitted * sources).sum(1) / sources.square().sum(1)
    # left free, the second would have the gain -0.4
    assert torch.allclose(gains[:, 1], torch.zeros(3), atol=1e-6) and (gains[:, 0] > 0.8).all()


def test_equal_estimates_share_the_level():
    mix = voices(1)[..., 0]
    fitted = fit_to_mixture(torch.stack([mix, 7 * mix], 2), mix)
    assert torch.allclose(fitted, 0.5 * mix.unsqueeze(2).expand(-1, -1, 2), atol=1e-5)


def test_silence_stays_silent_and_finite():
    sources = voices()
    sources[0, :, 1] = 0
    sources[1] = 0
    mix = sources.sum(2)
    mix[2] = 0
    fitted = fit_to_mixture(sources, mix)
    assert torch.isfinite(fitted).all()
    assert torch.allclose(fitted[0], sources[0], atol=1e-5)
    assert not fitted[1:].any()


def test_a_peak_turns_all_sources_of_its_mixture_down_by_one_factor():
    sources = voices()
    sources[1, 7, 0] = 3.0
    fitted = fit_to_mixture(sources, sources.sum(2))
    assert torch.allclose(fitted[1].abs().max(), torch.tensor(0.99))
    assert torch.allclose(fitted[1], sources[1] * 0.33, atol=1e-4)
    assert torch.allclose(fitted[0], sources[0], atol=1e-5)
    louder = fit_to_mixture(sources, sources.sum(2), peak=4.0)
    assert torch.allclose(louder, sources, atol=1e-4)


def test_what_lies_past_the_samples_does_not_matter_and_is_silenced():
    sources, samples = voices(), torch.tensor([400, 250, 3])
    mix = sources.sum(2)
    levels = torch.tensor([5.0, 0.1])
    estimates = sources * levels
    for item, length in enumerate(samples.tolist()):
        estimates[item, length:] = torch.nan
        mix[item, length:] = 9
    fitted = fit_to_mixture(estimates, mix, samples)
    for item, length in enumerate(samples.tolist()):
        alone = fit_to_mixture(estimates[item, :length], mix[item, :length])
        assert torch.allclose(fitted[item, :length], alone, atol=1e-6)
        assert not fitted[item, length:].any()


def test_wrong_input_is_one_error_each():
    sources = voices()
    mix = sources.sum(2)
    with pytest.raises(ValueError, match=r"\(3, 400, 2\) and \(3, 399\)"):
        fit_to_mixture(sources, mix[:, 1:])
    with pytest.raises(ValueError, match="peak must be positive"):
        fit_to_mixture(sources, mix, peak=0)
    sources[1, 3] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        fit_to_mixture(sources, mix)
