"""Root-mean-square normalisation over channels."""

import torch
from torch import nn

from modules.ssm.precision import at_least_float32


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension, computed in float32 or better.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (arXiv 1910.07467), section 4.

    Arguments
    ---------
    channels : int
    eps : float

    Example
    -------
    >>> import torch
    >>> from modules.ssm import RMSNorm
    >>> RMSNorm(4)(torch.full((1, 4), 3.0)).tolist()[0][0] > 0.999
    True
    """

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        """Normalise ``x`` (..., channels)."""
        wide = at_least_float32(x)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)
