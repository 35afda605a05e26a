"""Student layers that read any length and leave no trace of padding: Transformer and BiMamba.

Sources: sizes of the SV-Mixer paper (arXiv 2509.14136); the BiMamba block of :mod:`modules.ssm`.
"""

from torch import nn

from modules.ssm import BiMamba, RMSNorm
from modules.ssm.masking import keep_valid, valid_frames


class TransformerLayer(nn.TransformerEncoderLayer):
    """torch's pre-norm Transformer layer without positions, which the paper's students lack.

    Interpretation: 8.40 M parameters are four projections of ``1024^2`` and a feed-forward network of 2048 hidden
    channels. The paper's 1.25 GMAC leave out the two products of attention, another 0.05 GMAC at 149 frames.

    Arguments
    ---------
    d_model : int
        Channels.
    n_frames : int, optional
        Frames of an utterance, not used: the layer takes any length.
    n_heads : int, optional
        Attention heads; one for 64 channels by default.
    d_ffn : int, optional
        Width within the feed-forward network; ``2 * d_model`` by default.
    dropout : float
        Dropout of attention weights, within the feed-forward network and of both outputs.

    Raises
    ------
    ValueError
        If ``n_heads`` does not divide ``d_model``.

    Example
    -------
    >>> import torch
    >>> TransformerLayer(16, n_heads=2)(torch.randn(2, 5, 16), torch.tensor([5, 2])).shape
    torch.Size([2, 5, 16])
    """

    any_length = True

    def __init__(self, d_model, n_frames=None, n_heads=None, d_ffn=None, dropout=0.0):
        n_heads = max(1, d_model // 64) if n_heads is None else n_heads
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads must divide d_model = {d_model}; got {n_heads}")
        super().__init__(
            d_model,
            n_heads,
            2 * d_model if d_ffn is None else d_ffn,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )

    def forward(self, x, lengths=None):
        """Mix ``x`` (batch, time, d_model) with frame counts (batch,)."""
        valid = valid_frames(lengths, x.shape[1], x.device)
        x = keep_valid(x, valid)
        return super().forward(x, src_key_padding_mask=None if valid is None else ~valid)


class BiMambaLayer(nn.Module):
    """A pre-norm :class:`modules.ssm.BiMamba` block with a residual, at SV-Mixer's size.

    At width 1024 it has 3.78 M parameters, 1 % more than SV-Mixer's 3.75 M: as many inner channels as channels, and
    steps of rank 128, twice Mamba's rule. It has no feed-forward part.

    Arguments
    ---------
    d_model : int
        Channels.
    n_frames : int, optional
        Frames of an utterance, not used: the layer takes any length.
    expand : int
        Inner channels over channels.
    dt_rank : int, optional
        Rank of the step's projection; ``d_model / 8`` by default.
    dropout : float
        Dropout of the block's output.
    **mamba_options
        Other options of the block (``d_state``, ``d_conv``, ``dt_bc_norm``, ...).

    Example
    -------
    >>> import torch
    >>> BiMambaLayer(16)(torch.randn(2, 5, 16), torch.tensor([5, 2])).shape
    torch.Size([2, 5, 16])
    """

    any_length = True

    def __init__(
        self, d_model, n_frames=None, expand=1, dt_rank=None, dropout=0.0, **mamba_options
    ):
        super().__init__()
        self.norm = RMSNorm(d_model)
        rank = max(1, d_model // 8) if dt_rank is None else dt_rank
        self.block = BiMamba(d_model, expand=expand, dt_rank=rank, **mamba_options)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, lengths=None):
        """Mix ``x`` (batch, time, d_model) with frame counts (batch,)."""
        return x + self.dropout(self.block(self.norm(x), lengths))
