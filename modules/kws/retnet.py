"""Keyword spotting with a retentive network, the published sequence baseline.

Source: the published code of "Mamba-based Network Design for Keyword Spotting" (Makarov and Levi, 2024), whose
parameter names are kept. Its norms run over time, so that it is not causal although retention is.
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.kws.retention import MultiScaleRetention
from modules.kws.spotter import SequenceSpotter
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32


class TimeGroupNorm(nn.Module):
    """Group norm over a group's channels and all frames of a clip, padding left out.

    Arguments
    ---------
    groups, channels : int
    eps : float

    Example
    -------
    >>> import torch
    >>> norm, x = TimeGroupNorm(2, 8), torch.randn(1, 6, 8)
    >>> torch.allclose(norm(x, torch.tensor([4]))[:, :4], norm(x[:, :4]), atol=1e-5)
    True
    """

    def __init__(self, groups, channels, eps=1e-5):
        super().__init__()
        self.gn = nn.GroupNorm(groups, channels, eps)

    def forward(self, x, lengths=None):
        """Normalise ``x`` (batch, time, channels) with the statistics of its first ``lengths`` frames."""
        if lengths is None:
            return self.gn(x.transpose(1, 2)).transpose(1, 2)
        valid = valid_frames(lengths, x.shape[1], x.device)
        wide = at_least_float32(x)
        grouped = wide.unflatten(-1, (self.gn.num_groups, -1))  # (batch, time, groups, channels)
        count = (lengths.clamp(min=1) * grouped.shape[-1]).view(-1, 1, 1, 1)
        mean = keep_valid(grouped, valid).sum((1, 3), keepdim=True) / count
        centred = grouped - mean
        variance = keep_valid(centred, valid).square().sum((1, 3), keepdim=True) / count
        out = (centred * torch.rsqrt(variance + self.gn.eps)).flatten(2)
        return (out * self.gn.weight + self.gn.bias).to(x.dtype)


class RetentionBlock(nn.Module):
    """Retention and a feed-forward network, each normalised before and on a residual.

    Arguments
    ---------
    d_model, n_heads : int
    dropout : float

    Example
    -------
    >>> import torch
    >>> RetentionBlock(16, 2, 0.03)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, d_model, n_heads, dropout):
        super().__init__()
        self.norm = TimeGroupNorm(n_heads, d_model)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.retention = MultiScaleRetention(d_model, n_heads)
        self.out_proj = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)
        self.ffn_norm = TimeGroupNorm(n_heads, d_model)
        self.ffn = nn.Sequential(
            nn.Linear(d_model, 2 * d_model),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * d_model, d_model),
            nn.Dropout(dropout),
        )

    def forward(self, x, lengths=None):
        """Run the block over ``x`` (batch, time, d_model)."""
        y = self.norm(x, lengths)
        q, k = F.normalize(self.q_proj(y), dim=-1), F.normalize(self.k_proj(y), dim=-1)
        y, _ = self.retention(q, k, self.v_proj(y))
        x = x + self.dropout(self.out_proj(y))
        return x + self.ffn(self.ffn_norm(x, lengths))


class RetNetKeywordSpotter(SequenceSpotter):
    """Retention blocks over the frames of a clip, and a classifier of their mean.

    Arguments
    ---------
    n_classes : int
    d_model, n_layers, n_heads : int
        Sizes; the defaults are the sizes of the published scores.
    feature_dim, kind, fidelity
        Of :class:`modules.kws.spotter.SequenceSpotter`.
    dropout : float
        Before blocks and classifier; 0.3 of it in the first block, less in later ones.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    >>> import torch
    >>> model = RetNetKeywordSpotter(n_classes=5, d_model=16, n_layers=2, n_heads=2, feature_dim=32).eval()
    >>> model(torch.randn(2, 63, 32), torch.tensor([63, 40])).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        n_classes=35,
        d_model=128,
        n_layers=6,
        n_heads=8,
        feature_dim=128,
        kind="mel",
        dropout=0.1,
        fidelity="corrected",
    ):
        if d_model % n_heads:
            raise ValueError(f"d_model = {d_model} must be a multiple of n_heads = {n_heads}")
        super().__init__(n_classes, d_model, feature_dim, kind, dropout, False, fidelity)
        # 0.03, 0.027, ..., 0.02 as published, where dropout is 0.1
        self.blocks.extend(
            RetentionBlock(d_model, n_heads, dropout * max(0.2, 0.3 - 0.03 * index))
            for index in range(n_layers)
        )

    def mix(self, x, lengths):
        """Run the blocks over ``x`` (batch, time, d_model)."""
        for block in self.blocks:
            x = block(x, lengths)
        return x
