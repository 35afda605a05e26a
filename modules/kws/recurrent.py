"""Keyword spotting with gated recurrent units (GRU), the recurrent baseline.

Embedding, mean over the frames and classifier are as in the Mamba networks, so only the layer along time differs.
Source of the layer: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (arXiv 1406.1078),
section 2.3. Source of the keyword network: Zhang et al., "Hello Edge" (arXiv 1711.07128), section 3.3.
"""

import torch
from torch import nn

from modules.kws.spotter import SequenceSpotter
from modules.ssm.precision import at_least_float32


class GRUBlock(nn.Module):
    """Layer norm, a GRU from the first frame to the last, a projection and dropout on a residual.

    Arguments
    ---------
    d_model, hidden_size : int
        Channels of the residual, and units of the GRU.
    dropout : float

    Example
    -------
    >>> import torch
    >>> GRUBlock(16, 24, 0.1)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, d_model, hidden_size, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.gru = nn.GRU(d_model, hidden_size, batch_first=True)
        self.out_proj = nn.Linear(hidden_size, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        """Run the block over ``x`` (batch, time, d_model)."""
        y = self.norm(x)
        # the CPU's GRU takes one type for input and weights; its sum along time wants float32 anyway
        with torch.autocast(x.device.type, enabled=False):
            y, _ = self.gru(at_least_float32(y))
        return x + self.dropout(self.out_proj(y.to(x.dtype)))


class GRUKeywordSpotter(SequenceSpotter):
    """GRU layers over the frames of a clip, and a classifier of their mean.

    No frame reads a later one, so that what stands behind a clip's end never reaches it.

    Arguments
    ---------
    n_classes : int
    d_model, n_layers : int
        Channels and blocks.
    hidden_size : int
        Units of each GRU. The defaults give as many parameters as the small Mamba network on mel spectrograms.
    feature_dim, kind, fidelity
        Of :class:`modules.kws.spotter.SequenceSpotter`.
    dropout : float
        Before blocks and classifier; half of it in the blocks and within the classifier.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    >>> import torch
    >>> model = GRUKeywordSpotter(n_classes=5, d_model=16, n_layers=2, hidden_size=24, feature_dim=32).eval()
    >>> model(torch.randn(2, 63, 32), torch.tensor([63, 40])).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        n_classes=35,
        d_model=64,
        n_layers=2,
        hidden_size=170,
        feature_dim=128,
        kind="mel",
        dropout=0.1,
        fidelity="corrected",
    ):
        super().__init__(n_classes, d_model, feature_dim, kind, dropout, False, fidelity)
        if n_layers < 1 or hidden_size < 1:
            raise ValueError(
                f"n_layers and hidden_size must be 1 or more; got {n_layers} and {hidden_size}"
            )
        for _ in range(n_layers):
            self.blocks.append(GRUBlock(d_model, hidden_size, 0.5 * dropout))

    def mix(self, x, lengths):
        """Run the blocks over ``x`` (batch, time, d_model)."""
        for block in self.blocks:
            x = block(x)
        return x
