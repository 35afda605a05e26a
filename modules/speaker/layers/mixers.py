"""Student layers of MLP-Mixer, CycleMLP and ConvMixer, with which the SV-Mixer paper compares its own.

Sources: Tolstikhin et al., "MLP-Mixer" (arXiv 2105.01601); Chen et al., "CycleMLP" (arXiv 2107.10224); Ng et al.,
"ConvMixer" for keyword spotting (arXiv 2201.05863); sizes of the SV-Mixer paper (arXiv 2509.14136).
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.speaker.layers.parts import MLP, TokenMLP, check_frames, check_full
from modules.ssm.masking import keep_valid, valid_frames


class MLPMixerLayer(nn.Module):
    """An MLP over frames, then an MLP over channels, each on normalised frames, with a residual around it.

    Interpretation: the paper's 8.58 M parameters are an MLP of ``4 * n_frames`` and one of ``4 * d_model`` hidden
    channels (``8 * 149^2 + 8 * 1024^2``), biases and two normalisations.

    Arguments
    ---------
    d_model : int
        Channels.
    n_frames : int
        Frames of every utterance; 149 for 3 s.
    token_expansion, expansion : float
        Hidden sizes of the two MLPs, over ``n_frames`` and ``d_model``.
    dropout : float
        Dropout within and behind each MLP.

    Raises
    ------
    ValueError
        If ``n_frames`` is absent, or an utterance has another length.

    Example
    -------
    >>> import torch
    >>> MLPMixerLayer(8, n_frames=5)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    any_length = False
    _name = "MLP-Mixer"

    def __init__(self, d_model, n_frames=None, token_expansion=4, expansion=4, dropout=0.0):
        super().__init__()
        check_frames(self._name, n_frames)
        self.n_frames = n_frames
        self.token_norm, self.channel_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.token_mlp = TokenMLP(n_frames, int(token_expansion * n_frames), dropout)
        self.channel_mlp = MLP(d_model, int(expansion * d_model), dropout)

    def forward(self, x, lengths=None):
        """Mix ``x`` (batch, n_frames, d_model); every utterance fills its row."""
        check_full(self._name, x, lengths, self.n_frames)
        x = x + self.token_mlp(self.token_norm(x))
        return x + self.channel_mlp(self.channel_norm(x))


class ConvMixerLayer(MLPMixerLayer):
    """A convolution over time, then an :class:`MLPMixerLayer`.

    Interpretation: 1.48 GMAC over 9.02 M parameters are more than 149 for each parameter, so an MLP over frames is
    part of the layer, as in the ConvMixer for keyword spotting. What the layer has beyond MLP-Mixer's (0.44 M and
    0.05 GMAC) is read as a convolution of 3 frames in 8 groups of channels with GELU and a residual.

    Arguments
    ---------
    d_model, n_frames : int
        Channels, and frames of every utterance.
    kernel_size : int
        Frames of the convolution, odd.
    groups : int
        Groups of channels of the convolution.
    token_expansion, expansion, dropout
        Options of :class:`MLPMixerLayer`.

    Raises
    ------
    ValueError
        If ``kernel_size`` is even, ``groups`` does not divide ``d_model``, or as in :class:`MLPMixerLayer`.

    Example
    -------
    >>> import torch
    >>> ConvMixerLayer(8, n_frames=5)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    _name = "ConvMixer"

    def __init__(
        self,
        d_model,
        n_frames=None,
        kernel_size=3,
        groups=8,
        token_expansion=4,
        expansion=4,
        dropout=0.0,
    ):
        super().__init__(d_model, n_frames, token_expansion, expansion, dropout)
        check_odd("kernel_size", kernel_size)
        if groups < 1 or d_model % groups:
            raise ValueError(f"groups must divide d_model = {d_model}; got {groups}")
        self.conv_norm = nn.LayerNorm(d_model)
        self.conv = nn.Conv1d(
            d_model, d_model, kernel_size, padding=kernel_size // 2, groups=groups
        )
        self.conv_dropout = nn.Dropout(dropout)

    def forward(self, x, lengths=None):
        """Mix ``x`` (batch, n_frames, d_model); every utterance fills its row."""
        check_full(self._name, x, lengths, self.n_frames)
        local = self.conv(self.conv_norm(x).transpose(1, 2)).transpose(1, 2)
        return super().forward(x + self.conv_dropout(F.gelu(local)), lengths)


class CycleLinear(nn.Linear):
    """A linear layer whose input channels come from neighbouring frames in turn.

    Channel ``c`` is read ``c % step_size - step_size // 2`` frames later. Before and behind an utterance there are
    zeros. The layer takes no more parameters or work than a linear layer, and utterances of any length.

    Arguments
    ---------
    channels : int
        Channels in and out.
    step_size : int
        Frames that the channels are spread over, odd.

    Example
    -------
    >>> import torch
    >>> CycleLinear(8, step_size=3)(torch.randn(2, 5, 8), torch.tensor([5, 2])).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, channels, step_size=7):
        super().__init__(channels, channels)
        check_odd("step_size", step_size)
        self.step_size = step_size

    def forward(self, x, lengths=None):
        """Map ``x`` (batch, time, channels) with frame counts (batch,)."""
        time = x.shape[1]
        x = keep_valid(x, valid_frames(lengths, time, x.device))
        edge = self.step_size // 2
        padded = F.pad(x, (0, 0, edge, edge))
        index = torch.arange(time, device=x.device).unsqueeze(1)
        index = index + torch.arange(x.shape[2], device=x.device) % self.step_size
        return super().forward(padded.gather(1, index.expand_as(x)))


class CycleMLPLayer(nn.Module):
    """A cycle fully-connected layer over time, then an MLP over channels, each normalised and with a residual.

    Interpretation: the paper's 9.45 M parameters are ``9 * 1024^2`` and biases: one cycle layer of ``d_model^2``, and
    an MLP of ``4 * d_model`` hidden channels. CycleMLP's branches for a second axis fall away, since speech has one.

    Arguments
    ---------
    d_model : int
        Channels.
    n_frames : int, optional
        Frames of an utterance, not used: the layer takes any length.
    step_size : int
        Frames that the cycle layer reads, odd.
    expansion : float
        Hidden channels of the MLP over ``d_model``.
    dropout : float
        Dropout behind the cycle layer, and within and behind the MLP.

    Raises
    ------
    ValueError
        If ``step_size`` is even.

    Example
    -------
    >>> import torch
    >>> CycleMLPLayer(8)(torch.randn(2, 5, 8), torch.tensor([5, 2])).shape
    torch.Size([2, 5, 8])
    """

    any_length = True

    def __init__(self, d_model, n_frames=None, step_size=7, expansion=4, dropout=0.0):
        super().__init__()
        self.cycle_norm, self.channel_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.cycle = CycleLinear(d_model, step_size)
        self.dropout = nn.Dropout(dropout)
        self.channel_mlp = MLP(d_model, int(expansion * d_model), dropout)

    def forward(self, x, lengths=None):
        """Mix ``x`` (batch, time, d_model) with frame counts (batch,)."""
        x = x + self.dropout(self.cycle(self.cycle_norm(x), lengths))
        return x + self.channel_mlp(self.channel_norm(x))


def check_odd(name, value):
    """Raise ``ValueError`` unless the option ``name`` is an odd number of frames."""
    if value < 1 or value % 2 == 0:
        raise ValueError(f"{name} must be an odd number of frames; got {value}")
