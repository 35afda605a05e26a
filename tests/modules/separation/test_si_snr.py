"""SI-SNR is SpeechBrain's, value and gradient, and padding, silence and many speakers do not disturb it."""

from itertools import permutations

import pytest
import torch
from speechbrain.nnet.losses import get_si_snr_with_pitwrapper

from modules.separation.si_snr import pit_si_snr, si_snr, si_snr_improvement


def pair(speakers, batch=4, time=300, seed=1):
    """Targets, and estimates of them in another order, with crosstalk, noise, offsets and other levels."""
    random = torch.Generator().manual_seed(seed)
    targets = torch.randn(batch, time, speakers, generator=random)
    order = torch.stack([torch.randperm(speakers, generator=random) for _ in range(batch)])
    estimates = targets.gather(2, order[:, None].expand_as(targets))
    noise = torch.randn(batch, time, speakers, generator=random)
    level = torch.rand(batch, 1, speakers, generator=random) * 3 + 0.1
    return level * (estimates + 0.2 * estimates.roll(1, 2) + 0.3 * noise) + 0.5, targets, order


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_values_and_gradients_are_speechbrains(speakers):
    estimates, targets, _ = pair(speakers)
    gradients, values = [], []
    for measure in (
        lambda e: get_si_snr_with_pitwrapper(targets.clone(), e * 1.0),
        lambda e: -pit_si_snr(e, targets)[0],
    ):
        leaf = estimates.clone().requires_grad_()
        values.append(measure(leaf))
        values[-1].sum().backward()
        gradients.append(leaf.grad)
    assert torch.allclose(*values, rtol=1e-5, atol=1e-5)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6) and gradients[0].any()


@pytest.mark.parametrize("speakers", [2, 3])
def test_the_order_says_which_estimate_faces_each_target_and_is_the_best_of_all(speakers):
    estimates, targets, drawn = pair(speakers)
    best, order = pit_si_snr(estimates, targets)
    assert torch.equal(order.gather(1, drawn), torch.arange(speakers).expand(4, speakers))
    faced = estimates.gather(2, order[:, None].expand_as(targets))
    assert torch.allclose(si_snr(faced, targets).mean(1), best, atol=1e-5)
    for other in permutations(range(speakers)):
        assert (si_snr(estimates[:, :, list(other)], targets).mean(1) <= best + 1e-5).all()


def test_what_lies_past_the_samples_counts_for_nothing():
    estimates, targets, _ = pair(3)
    mix, samples = targets.sum(2), torch.tensor([300, 211, 57, 1])
    for item, length in enumerate(samples.tolist()):
        estimates[item, length:] = torch.nan
        targets[item, length:] = 1e4
        mix[item, length:] = -3
    leaf = estimates.clone().requires_grad_()
    values, order = pit_si_snr(leaf, targets, samples)
    improvements = si_snr_improvement(estimates, targets, mix, samples)
    for item, length in enumerate(samples.tolist()):
        one = (slice(item, item + 1), slice(0, length))
        alone, order_alone = pit_si_snr(estimates[one], targets[one])
        assert torch.allclose(values[item], alone[0], atol=1e-4)
        # one sample without its mean is silence: every order is as good
        assert length == 1 or torch.equal(order[item], order_alone[0])
        improvement = si_snr_improvement(estimates[one], targets[one], mix[one])
        assert torch.allclose(improvements[item], improvement[0], atol=1e-4)
    values.sum().backward()
    assert torch.isfinite(leaf.grad).all() and not leaf.grad[1, 211:].any()
    assert leaf.grad[1, :211].any()


@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-10])
@pytest.mark.parametrize("silent", ["estimates", "targets", "both"])
def test_silence_has_a_finite_value_and_gradient(level, silent):
    estimates, targets, _ = pair(2)
    estimates = estimates * (1.0 if silent == "targets" else level)
    targets = targets * (1.0 if silent == "estimates" else level)
    leaf = estimates.requires_grad_()
    value, _ = pit_si_snr(leaf, targets)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(leaf.grad).all()
    if level == 0.0:
        assert torch.allclose(value, torch.full_like(value, -80.0))


def test_scale_sign_and_offset_of_an_estimate_do_not_matter():
    estimates, targets, _ = pair(2)
    wanted = si_snr(estimates, targets)
    for changed in (-estimates, 20 * estimates, 0.05 * estimates + 3):
        assert torch.allclose(si_snr(changed, targets), wanted, atol=1e-3)


def test_a_known_ratio_is_measured_and_improvement_is_over_the_mixture():
    time = torch.arange(8000) / 8000
    tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (100, 230)], 1).unsqueeze(0)
    mix = tones.sum(2)
    # equal and orthogonal: the mixture has 0 dB, and a hundredth of the other's energy is 20 dB
    estimates = tones + 0.1 * tones.flip(2)
    assert torch.allclose(si_snr(mix.unsqueeze(2), tones), torch.zeros(1, 2), atol=1e-3)
    improvement = si_snr_improvement(estimates, tones, mix)
    assert torch.allclose(improvement, torch.tensor([20.0]), atol=1e-2)


def test_half_precision_is_computed_in_float32_and_float64_stays():
    estimates, targets, _ = pair(2)
    wanted = pit_si_snr(estimates.bfloat16().float(), targets)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pit_si_snr(estimates.bfloat16(), targets)[0], wanted)
    assert pit_si_snr(estimates.double(), targets.double())[0].dtype == torch.float64


def test_unequal_shapes_and_wrong_counts_are_one_error_each():
    estimates, targets, _ = pair(2)
    with pytest.raises(ValueError, match=r"\(4, 300, 1\) and \(4, 300, 2\)"):
        pit_si_snr(estimates[:, :, :1], targets)
    with pytest.raises(ValueError, match="lengths must"):
        pit_si_snr(estimates, targets, torch.tensor([301, 1, 1, 1]))
