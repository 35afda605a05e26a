"""Separated sources at the level at which they stand in the mixture.

A network that is trained on a scale-invariant measure gives its sources any level and either sign: written to
a file as they are, they clip or are all but silent.
"""

import torch

from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames

# of the Gram matrix of the estimates at unit norm: shares the level evenly between those that are all but
# equal, where plain least squares would play huge gains of opposite signs off against each other
RIDGE = 1e-2
# of the level that an estimate has of its own in the mixture: it is given no less, since where one estimate is the
# mixture itself least squares would silence the others
LEAST_SHARE = 0.1


@torch.no_grad()
def fit_to_mixture(estimates, mix, samples=None, peak=0.99):
    """Give each source the gain with which the sources sum to the mixture, in the sense of least squares.

    The gains are found jointly, each with a sign of its own: the measure fixes none, and networks are trained that
    give one speaker upside down and the other not. Estimates that are much alike share the level, and none is
    turned down by more than 20 dB from the level at which it alone comes nearest to the mixture.
    Where a source would then pass ``peak``, all of the mixture's sources are turned down by one factor, so that
    their ratio stays.

    Arguments
    ---------
    estimates : torch.Tensor
        (batch, time, speakers) or (time, speakers).
    mix : torch.Tensor
        (batch, time) or (time,).
    samples : torch.Tensor, optional
        (batch,) integer sample counts; the result is 0 past them.
    peak : float
        Largest magnitude of the result; full scale is 1.

    Returns
    -------
    torch.Tensor
        As ``estimates``. A silent estimate, and all of a silent mixture, give silence.

    Raises
    ------
    ValueError
        If the shapes do not belong together, ``peak`` is not positive, or a value is not finite.

    Example
    -------
    >>> import torch
    >>> from modules.separation.level import fit_to_mixture
    >>> sources = 0.1 * torch.randn(400, 2)
    >>> fitted = fit_to_mixture(sources * torch.tensor([50.0, 0.2]), sources.sum(dim=1))
    >>> bool((fitted - sources).abs().max() < 1e-3)
    True
    """
    if estimates.dim() == 2 and mix.dim() == 1 and samples is None:
        return fit_to_mixture(estimates.unsqueeze(0), mix.unsqueeze(0), None, peak).squeeze(0)
    if estimates.dim() != 3 or estimates.shape[:2] != mix.shape:
        raise ValueError(
            "estimates must be (batch, time, speakers) and mix (batch, time), or both without batch; got "
            f"{tuple(estimates.shape)} and {tuple(mix.shape)}"
        )
    if peak <= 0:
        raise ValueError(f"peak must be positive; got {peak}")
    check_lengths(samples, *mix.shape)
    valid = valid_frames(samples, mix.shape[1], mix.device)
    sources, target = keep_valid(estimates, valid).double(), keep_valid(mix, valid).double()
    if not (torch.isfinite(sources).all() and torch.isfinite(target).all()):
        raise ValueError("estimates or mix hold values that are not finite")
    # on sources of unit norm, so that their levels do not matter to the solution
    norms = sources.norm(dim=1)
    units = sources / norms.clamp(min=1e-20).unsqueeze(1)
    gains = _gains(units, target) * (norms > 0)
    fitted = units * gains.unsqueeze(1)
    loudest = fitted.abs().amax(dim=(1, 2), keepdim=True)
    fitted = fitted * torch.where(loudest > peak, peak / loudest, 1.0)
    return fitted.to(estimates.dtype)


def _gains(units, target):
    """Gains (batch, speakers) with which ``units`` (batch, time, speakers) come nearest to ``target`` (batch, time)."""
    speakers = units.shape[2]
    ridge = RIDGE * torch.eye(speakers, dtype=units.dtype, device=units.device)
    gram = units.transpose(1, 2) @ units + ridge
    alone = (units.transpose(1, 2) @ target.unsqueeze(2)).squeeze(2)
    # the factor makes good what the ridge takes from estimates that have nothing in common
    gains = (1 + RIDGE) * torch.linalg.solve(gram, alone)
    least = LEAST_SHARE * alone
    return torch.where(gains.abs() < least.abs(), least, gains)
