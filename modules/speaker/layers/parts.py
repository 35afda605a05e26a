"""Parts that several student layers share: multilayer perceptrons over time and channels, checks of lengths."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def check_frames(name, n_frames):
    """Raise ``ValueError`` unless ``n_frames`` says how many frames the fixed-length layer ``name`` mixes."""
    if n_frames is None or n_frames < 1:
        raise ValueError(
            f"{name} mixes a fixed number of frames: n_frames must be 1 or more; got {n_frames}"
        )


def check_full(name, x, lengths, n_frames):
    """Raise ``ValueError`` unless every utterance of ``x`` (batch, time, ...) has exactly ``n_frames`` frames."""
    counts = [x.shape[1]]
    if lengths is not None and lengths.device.type == "cpu" and not torch.compiler.is_compiling():
        counts += lengths.tolist()
    wrong = [count for count in counts if count != n_frames]
    if wrong:
        raise ValueError(
            f"{name} mixes exactly {n_frames} frames; got an utterance of {wrong[0]}: cut crops of one length, "
            "and repeat shorter recordings"
        )


class MLP(nn.Sequential):
    """Two linear layers around GELU, on the last dimension.

    Arguments
    ---------
    size, hidden : int
        Channels in and out, and between the two layers.
    dropout : float
        Dropout of the hidden and of the last channels.

    Example
    -------
    >>> import torch
    >>> MLP(8, 16)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, size, hidden, dropout=0.0):
        super().__init__(
            nn.Linear(size, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, size),
            nn.Dropout(dropout),
        )


class TokenMLP(MLP):
    """:class:`MLP` over time, the same for every channel of (batch, n_frames, channels).

    Example
    -------
    >>> import torch
    >>> TokenMLP(5, 20)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def forward(self, x):
        """Mix the frames of ``x``."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class GroupedMLP(nn.Module):
    """Channels in groups, each with its own two linear layers around GELU.

    Arguments
    ---------
    d_model : int
        Channels in and out.
    groups : int
        Groups of neighbouring channels.
    expansion : float
        Hidden channels of a group over its channels.
    dropout : float
        Dropout of the hidden and of the last channels.

    Raises
    ------
    ValueError
        If channels or hidden channels cannot be shared out evenly.

    Example
    -------
    >>> import torch
    >>> GroupedMLP(8, groups=2, expansion=4.5)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_model, groups, expansion, dropout=0.0):
        super().__init__()
        if groups < 1 or d_model % groups:
            raise ValueError(f"groups must divide d_model = {d_model}; got {groups}")
        size = d_model // groups
        hidden = expansion * size
        if hidden < 1 or hidden != int(hidden):
            raise ValueError(
                f"expansion must give a group of {size} channels a whole number of hidden channels; got {expansion}"
            )
        self.groups, self.dropout = groups, nn.Dropout(dropout)
        self.weight_in, self.bias_in = _linear(groups, size, int(hidden))
        self.weight_out, self.bias_out = _linear(groups, int(hidden), size)

    def forward(self, x):
        """Mix the channels of ``x`` (batch, time, d_model)."""
        batch, time, channels = x.shape
        x = x.reshape(batch * time, self.groups, -1).transpose(0, 1)  # (groups, frames, size)
        x = self.dropout(F.gelu(torch.baddbmm(self.bias_in, x, self.weight_in)))
        x = self.dropout(torch.baddbmm(self.bias_out, x, self.weight_out))
        return x.transpose(0, 1).reshape(batch, time, channels)


def _linear(groups, size, out):
    """Weights (groups, size, out) and biases (groups, 1, out) as torch draws a linear layer's."""
    bound = 1 / math.sqrt(size)
    return tuple(
        nn.Parameter(torch.empty(groups, rows, out).uniform_(-bound, bound)) for rows in (size, 1)
    )
