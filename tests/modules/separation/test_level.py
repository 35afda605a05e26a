"""Separated sources get the level that they have in the mixture, whatever level and sign the network gave them."""

import pytest
import torch

from modules.separation.level import fit_to_mixture


def voices(speakers=2, batch=3, time=400):
    return 0.1 * torch.randn(batch, time, speakers)


@pytest.mark.parametrize("speakers", [1, 2, 3])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1), (1, -1, 1), (-1, 1, 1)], ids=str)
def test_level_and_sign_of_each_source_are_restored_whatever_they_were(speakers, signs):
    sources = voices(speakers, time=4000)
    levels = torch.tensor(signs[:speakers]) * torch.tensor([1e4, 1e-4, 3.0])[:speakers]
    fitted = fit_to_mixture(sources * levels, sources.sum(2))
    assert torch.allclose(fitted, sources, atol=2e-3)
    again = fit_to_mixture(sources[0] * levels, sources[0].sum(1))
    assert torch.allclose(again, fitted[0], atol=1e-6)


def test_imperfect_estimates_sum_nearly_to_the_mixture_at_the_level_of_least_squares():
    sources = voices(time=4000)
    mix = sources.sum(2)
    estimates = sources + 0.3 * sources.flip(2) + 0.02 * torch.randn_like(sources)
    fitted = fit_to_mixture(estimates, mix)
    wanted = torch.linalg.lstsq(estimates, mix.unsqueeze(2)).solution
    assert torch.allclose(fitted, estimates * wanted.mT, rtol=0.03, atol=1e-4)


@pytest.mark.parametrize("step", [0.0, 1e-4, 1e-2])
def test_estimates_that_are_all_but_equal_are_not_played_off_against_each_other(step):
    mix, wrong = voices(1)[..., 0], voices(1)[..., 0]
    fitted = fit_to_mixture(torch.stack([mix + wrong, mix + (1 + step) * wrong], 2), mix)
    # plain least squares has gains of 1 / step, with opposite signs
    assert (fitted.norm(dim=1) < 1.5 * mix.norm(dim=1, keepdim=True)).all()


def test_no_source_is_silenced_by_another_that_is_the_mixture_itself():
    sources = voices(time=4000)
    mix = sources.sum(2)
    fitted = fit_to_mixture(torch.stack([mix, sources[..., 1]], 2), mix)
    level = fitted.norm(dim=1) / sources[..., 1].norm(dim=1, keepdim=True)
    assert (level[:, 1] > 0.09).all() and (level[:, 0] > 1).all()


def test_equal_estimates_share_the_level():
    mix = voices(1)[..., 0]
    fitted = fit_to_mixture(torch.stack([mix, 7 * mix], 2), mix)
    assert torch.allclose(fitted, 0.5 * mix.unsqueeze(2).expand(-1, -1, 2), rtol=0.01)


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
    assert torch.allclose(fitted[1], sources[1] * 0.33, atol=1e-3)
    assert torch.allclose(fitted[0], sources[0], atol=1e-3)
    louder = fit_to_mixture(sources, sources.sum(2), peak=4.0)
    assert torch.allclose(louder, sources, atol=1e-2)


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
