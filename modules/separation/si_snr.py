"""Scale-invariant signal-to-noise ratio of separated speech, and the order of speakers that gives the best.

The measure follows Le Roux et al., "SDR - half-baked or well done?" (arXiv 1811.02508, section 3), with the means
removed. The training objective is its permutation-invariant form (Kolbaek et al., arXiv 1703.06284,
section III). Everything is computed in float32 at least.
"""

from itertools import permutations

import torch

from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32

# in both denominators and inside the logarithm, as published
EPSILON = 1e-8
# whose 40,320 orders are tried in no time; twelve would have half a billion
MOST_SPEAKERS = 8


def si_snr(estimate, target, samples=None):
    """Scale-invariant signal-to-noise ratio in dB.

    Arguments
    ---------
    estimate, target : torch.Tensor
        (batch, time, ...), shapes that broadcast.
    samples : torch.Tensor, optional
        (batch,) integer sample counts; what lies past them counts for nothing.

    Returns
    -------
    torch.Tensor
        (batch, ...), higher is better. A silent estimate has -80 dB.

    Example
    -------
    >>> import torch
    >>> target = torch.sin(torch.arange(800) * 0.1).unsqueeze(0)
    >>> noise = torch.cos(torch.arange(800) * 0.7).unsqueeze(0)
    >>> round(float(si_snr(3 * (target + 0.1 * noise), target)))
    20
    """
    estimate, target = _centred(estimate, samples), _centred(target, samples)
    return _centred_si_snr(estimate, target)


def pit_si_snr(estimates, targets, samples=None):
    """SI-SNR under the order of speakers that gives the highest, and that order.

    Arguments
    ---------
    estimates, targets : torch.Tensor
        (batch, time, speakers).
    samples : torch.Tensor, optional
        (batch,) integer sample counts.

    Returns
    -------
    (torch.Tensor, torch.Tensor)
        (batch,) in dB, the mean over speakers; and (batch, speakers) integers, such that
        ``estimates[b, :, order[b]]`` faces ``targets[b]``. A loss is the first, negated.

    Raises
    ------
    ValueError
        If the shapes differ, or there are more than eight speakers.

    Example
    -------
    >>> import torch
    >>> targets = torch.randn(1, 100, 2)
    >>> pit_si_snr(targets.flip(-1), targets)[1].tolist()
    [[1, 0]]
    """
    if estimates.shape != targets.shape or targets.dim() != 3:
        raise ValueError(
            "estimates and targets must both be (batch, time, speakers); got "
            f"{tuple(estimates.shape)} and {tuple(targets.shape)}"
        )
    if targets.shape[2] > MOST_SPEAKERS:
        raise ValueError(
            f"targets must hold at most {MOST_SPEAKERS} speakers, as every order of them is tried; "
            f"got {targets.shape[2]}"
        )
    estimates, targets = _centred(estimates, samples), _centred(targets, samples)
    # (batch, estimate, target)
    pairs = _centred_si_snr(estimates.unsqueeze(3), targets.unsqueeze(2))
    speakers = targets.shape[2]
    orders = torch.tensor(list(permutations(range(speakers))), device=pairs.device)
    # (batch, orders)
    means = pairs[:, orders, torch.arange(speakers, device=pairs.device)].mean(dim=2)
    best, index = means.max(dim=1)
    return best, orders[index]


def si_snr_improvement(estimates, targets, mix, samples=None):
    """How much better the separated sources are than the mixture itself, in dB.

    Arguments
    ---------
    estimates, targets : torch.Tensor
        (batch, time, speakers).
    mix : torch.Tensor
        (batch, time).
    samples : torch.Tensor, optional
        (batch,) integer sample counts.

    Returns
    -------
    torch.Tensor
        (batch,), the mean over speakers, under the best order.
    """
    unseparated = si_snr(mix.unsqueeze(2), targets, samples).mean(dim=1)
    return pit_si_snr(estimates, targets, samples)[0] - unseparated


def _centred(signal, samples):
    """``signal`` (batch, time, ...) in float32 at least, without its mean over the valid samples; 0 past them."""
    signal = at_least_float32(signal)
    if samples is None:
        return signal - signal.mean(dim=1, keepdim=True)
    batch, time = signal.shape[:2]
    check_lengths(samples, batch, time)
    valid = valid_frames(samples, time, signal.device)
    counts = samples.to(signal.device).clamp(min=1).view(-1, *[1] * (signal.dim() - 1))
    signal = keep_valid(signal, valid)
    return keep_valid(signal - signal.sum(dim=1, keepdim=True) / counts, valid)


def _centred_si_snr(estimate, target):
    with torch.autocast(target.device.type, enabled=False):
        dot = (estimate * target).sum(dim=1, keepdim=True)
        projection = dot * target / (target.square().sum(dim=1, keepdim=True) + EPSILON)
        noise = (estimate - projection).square().sum(dim=1)
        return 10 * torch.log10(projection.square().sum(dim=1) / (noise + EPSILON) + EPSILON)
