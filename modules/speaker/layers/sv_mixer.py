"""SV-Mixer's layer: local and global mixing of frames, mixing at two rates, mixing of channels in groups.

Source: the SV-Mixer paper (arXiv 2509.14136), section on the architecture.
"""

from torch import nn
from torch.nn import functional as F

from modules.speaker.layers.parts import GroupedMLP, TokenMLP, check_frames, check_full


class LocalGlobalMixing(nn.Module):
    """LGM: a convolution over 3 frames, one kernel a channel, then an MLP over all frames.

    Arguments
    ---------
    d_model, n_frames : int
        Channels, and frames of every utterance.
    expansion : float
        Hidden size of the MLP over ``n_frames``.
    dropout : float
        Dropout within and behind the MLP.

    Example
    -------
    >>> import torch
    >>> LocalGlobalMixing(8, n_frames=5)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_model, n_frames, expansion=4, dropout=0.0):
        super().__init__()
        self.local = nn.Conv1d(d_model, d_model, 3, padding=1, groups=d_model)
        self.mlp = TokenMLP(n_frames, int(expansion * n_frames), dropout)

    def forward(self, x):
        """Mix ``x`` (batch, n_frames, d_model)."""
        return self.mlp(self.local(x.transpose(1, 2)).transpose(1, 2))


class MultiScaleMixing(nn.Module):
    """MSM: an MLP over channels at the full rate, and one at half the rate, added.

    The slower branch takes means of two neighbouring frames; an odd last frame stands for itself. Linear
    interpolation brings it back to the full rate.

    Arguments
    ---------
    d_model : int
        Channels.
    groups, expansion, dropout
        Options of both :class:`modules.speaker.layers.parts.GroupedMLP`.

    Example
    -------
    >>> import torch
    >>> MultiScaleMixing(8, groups=2, expansion=4)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_model, groups, expansion, dropout=0.0):
        super().__init__()
        self.fast = GroupedMLP(d_model, groups, expansion, dropout)
        self.slow = GroupedMLP(d_model, groups, expansion, dropout)

    def forward(self, x):
        """Mix ``x`` (batch, time, d_model)."""
        slow = F.avg_pool1d(x.transpose(1, 2), 2, ceil_mode=True).transpose(1, 2)
        slow = F.interpolate(self.slow(slow).transpose(1, 2), size=x.shape[1], mode="linear")
        return self.fast(x) + slow.transpose(1, 2)


class GroupChannelMixing(GroupedMLP):
    """GCM: groups of channels, each with its own MLP.

    Example
    -------
    >>> import torch
    >>> GroupChannelMixing(8, groups=2, expansion=4)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """


class SVMixerLayer(nn.Module):
    """LGM, MSM, GCM in turn, each on normalised frames, with a residual around it.

    The paper gives neither the number of groups nor normalisation, and its formulas say 3.75 M parameters and
    0.63 GMAC only if MSM is grouped as GCM is. Our interpretation: 8 groups and an expansion of 4.5 in all three
    MLPs over channels, layer normalisation before each module. At width 1024 and 149 frames that gives 3.74 M
    parameters and 0.62 GMAC.

    Arguments
    ---------
    d_model : int
        Channels.
    n_frames : int
        Frames of every utterance; 149 for 3 s.
    groups : int
        Groups of channels in MSM and GCM.
    expansion : float
        Hidden channels of a group over its channels.
    token_expansion : float
        Hidden size of LGM's MLP over ``n_frames``.
    dropout : float
        Dropout within and behind each MLP.

    Raises
    ------
    ValueError
        If ``n_frames`` is absent, groups or expansion do not fit ``d_model``, or an utterance has another length.

    Example
    -------
    >>> import torch
    >>> layer = SVMixerLayer(16, n_frames=5)
    >>> layer(torch.randn(2, 5, 16)).shape
    torch.Size([2, 5, 16])
    """

    any_length = False

    def __init__(
        self, d_model, n_frames=None, groups=8, expansion=4.5, token_expansion=4, dropout=0.0
    ):
        super().__init__()
        check_frames("SV-Mixer", n_frames)
        self.n_frames = n_frames
        self.mixers = nn.ModuleList(
            [
                LocalGlobalMixing(d_model, n_frames, token_expansion, dropout),
                MultiScaleMixing(d_model, groups, expansion, dropout),
                GroupChannelMixing(d_model, groups, expansion, dropout),
            ]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in self.mixers)

    def forward(self, x, lengths=None):
        """Mix ``x`` (batch, n_frames, d_model); every utterance fills its row."""
        check_full("SV-Mixer", x, lengths, self.n_frames)
        for norm, mix in zip(self.norms, self.mixers, strict=True):
            x = x + mix(norm(x))
        return x
