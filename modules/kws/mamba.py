"""Keyword spotting with Mamba: the three published sizes on mel spectrograms or MFCC, both ways, and on streams.

Source: the published code of "Mamba-based Network Design for Keyword Spotting" (Makarov and Levi, 2024), whose
parameter names are kept.
"""

from typing import NamedTuple

import torch
from torch import nn

from modules.kws.spotter import SequenceSpotter, windowed_mean
from modules.ssm import BiMamba, Mamba

# name of a size: d_model, n_layers
SIZES = {"small": (64, 8), "medium": (128, 10), "large": (192, 12)}


class SpottingState(NamedTuple):
    """What a causal network carries along a stream.

    ``embedding`` and ``blocks`` are the layers' own; ``recent`` (batch, window, d_model) or ``None``, ``total`` (batch,
    d_model) and ``count`` are the mean's.
    """

    embedding: tuple | None
    blocks: tuple
    recent: torch.Tensor | None
    total: torch.Tensor
    count: int


class MambaBlock(nn.Module):
    """Layer norm, Mamba and dropout on a residual.

    Arguments
    ---------
    mixer : torch.nn.Module
        A :class:`modules.ssm.Mamba` or :class:`modules.ssm.BiMamba`.
    dropout : float

    Example
    -------
    >>> import torch
    >>> from modules.ssm import Mamba
    >>> MambaBlock(Mamba(16), 0.1)(torch.randn(2, 10, 16))[0].shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, mixer, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(mixer.d_model)
        self.mamba = mixer
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, lengths=None, state=None):
        """Run the block over ``x`` (batch, time, channels); returns that and the state to carry."""
        mixed, state = self.mamba(self.norm(x), lengths, state=state, return_state=True)
        return x + self.dropout(mixed), state


class MambaKeywordSpotter(SequenceSpotter):
    """Mamba blocks over the frames of a clip, and a classifier of their mean.

    Arguments
    ---------
    n_classes : int
    d_model, n_layers : int
        Channels and blocks: 64 and 8, 128 and 10, 192 and 12 in the published sizes.
    feature_dim : int
        Features a frame, 128 mel bands or 40 MFCC as published.
    kind : str
        ``mel`` puts four convolutions before the blocks, ``mfcc`` none.
    d_state, d_conv, expand : int
        Of :class:`modules.ssm.Mamba`.
    dropout : float
        Before blocks and classifier; half of it in the first block and within the classifier, less in later
        blocks.
    bidirectional : bool
        Blocks that run both ways (:class:`modules.ssm.BiMamba`).
    causal : bool
        No frame reads a later one, so that the network runs along a stream with carried state.
    fidelity : str
        ``corrected`` keeps padding out; ``upstream`` only out of the mean, as published.

    Raises
    ------
    ValueError
        If an option is outside its range, or both ``bidirectional`` and ``causal`` are set.

    Example
    -------
    >>> import torch
    >>> model = MambaKeywordSpotter(n_classes=5, d_model=16, n_layers=2, feature_dim=32).eval()
    >>> model(torch.randn(2, 63, 32), torch.tensor([63, 40])).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        n_classes=35,
        d_model=64,
        n_layers=8,
        feature_dim=128,
        kind="mel",
        d_state=16,
        d_conv=4,
        expand=2,
        dropout=0.1,
        bidirectional=False,
        causal=False,
        fidelity="corrected",
    ):
        if bidirectional and causal:
            raise ValueError("bidirectional reads the future, causal must not: set one of them")
        super().__init__(n_classes, d_model, feature_dim, kind, dropout, causal, fidelity)
        self.causal = causal
        mixer = BiMamba if bidirectional else Mamba
        for index in range(n_layers):
            block = mixer(d_model, d_state=d_state, d_conv=d_conv, expand=expand)
            # 0.05, 0.045, ..., 0.02 as published, where dropout is 0.1
            self.blocks.append(MambaBlock(block, dropout * max(0.2, 0.5 - 0.05 * index)))

    def mix(self, x, lengths):
        """Run the blocks over ``x`` (batch, time, d_model)."""
        for block in self.blocks:
            x, _ = block(x, lengths)
        return x

    def initial_state(self, batch, window=None):
        """The state of ``batch`` streams before their first frame, for a causal network.

        Arguments
        ---------
        batch : int
        window : int, optional
            Frames of embedding that :meth:`stream` averages, see ``subsampling``; ``None`` averages all since the
            start, which gives at a clip's last frame what :meth:`forward` gives.

        Raises
        ------
        ValueError
            If the network is not causal, or the window is empty.
        """
        if not self.causal:
            raise ValueError("only a causal network carries a state: build it with causal=True")
        if window is not None and window < 1:
            raise ValueError(f"window must be 1 frame of embedding or more; got {window}")
        total = self.pre_classifier_norm.weight.new_zeros(batch, self.d_model)
        return SpottingState(
            self.conv_embed.initial_state(batch, self.feature_dim) if self.kind == "mel" else None,
            tuple(block.mamba.initial_state(batch) for block in self.blocks),
            None if window is None else total.new_zeros(batch, window, self.d_model),
            total,
            0,
        )

    def forward_chunk(self, features, state):
        """Embed the next frames of a stream.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, feature_dim), any number of frames.
        state : SpottingState
            From :meth:`initial_state`, or what the previous chunk returned.

        Returns
        -------
        (torch.Tensor, SpottingState)
            (batch, new frames of embedding, d_model), equal to what :meth:`embed` gives for the whole.
        """
        self.check_features(features)
        embedding = state.embedding
        if self.kind == "mel":
            features, embedding = self.conv_embed.forward_chunk(features, embedding)
        if features.shape[1] == 0:
            nothing = state.total.new_zeros(features.shape[0], 0, self.d_model)
            return nothing, state._replace(embedding=embedding)
        x = self.proj(features)
        blocks = []
        for block, old in zip(self.blocks, state.blocks, strict=True):
            x, new = block(x, state=old)
            blocks.append(new)
        return self.pre_classifier_norm(x), state._replace(
            embedding=embedding, blocks=tuple(blocks)
        )

    def stream(self, features, state):
        """Logits at every frame of embedding that the next frames of a stream complete.

        It takes the arguments of :meth:`forward_chunk`. Only the new frames are computed.

        Returns
        -------
        (torch.Tensor, SpottingState)
            (batch, new frames of embedding, n_classes): the classifier on the mean over the state's window.

        Example
        -------
        >>> import torch
        >>> model = MambaKeywordSpotter(3, 16, 2, feature_dim=32, causal=True).eval()
        >>> features = torch.randn(1, 20, 32)
        >>> first, state = model.stream(features[:, :13], model.initial_state(1))
        >>> second, state = model.stream(features[:, 13:], state)
        >>> torch.allclose(second[:, -1], model(features), atol=1e-4)
        True
        """
        x, state = self.forward_chunk(features, state)
        means, *carried = windowed_mean(x, state.recent, state.total, state.count)
        return self.classify(means), SpottingState(*state[:2], *carried)


def _size(name, n_classes, kind, feature_dim, options):
    d_model, n_layers = SIZES[name]
    return MambaKeywordSpotter(n_classes, d_model, n_layers, feature_dim, kind, **options)


def mamba_mel_small(n_classes=35, **options):
    """The published small network on 128 mel bands: 462,147 parameters; options of the class.

    Example
    -------
    >>> sum(p.numel() for p in mamba_mel_small().parameters())
    462147
    """
    return _size("small", n_classes, "mel", 128, options)


def mamba_mel_medium(n_classes=35, **options):
    """The published medium network on 128 mel bands: 1,506,051 parameters; options of the class.

    Example
    -------
    >>> import torch
    >>> from modules.kws.features import WaveToSpec
    >>> from modules.kws.mamba import mamba_mel_medium
    >>> model = mamba_mel_medium(n_classes=35).eval()
    >>> frontend = WaveToSpec(n_mels=128, n_fft=2048, hop_length=256)
    >>> inputs = frontend(torch.randn(16000)).transpose(1, 2)
    >>> lengths = torch.tensor([inputs.shape[1]])
    >>> model(inputs, lengths).shape
    torch.Size([1, 35])
    """
    return _size("medium", n_classes, "mel", 128, options)


def mamba_mel_large(n_classes=35, **options):
    """The published large network on 128 mel bands: 3,504,323 parameters; options of the class.

    Example
    -------
    >>> sum(p.numel() for p in mamba_mel_large().parameters())
    3504323
    """
    return _size("large", n_classes, "mel", 128, options)


def mamba_mfcc_small(n_classes=35, **options):
    """The published small network on 40 MFCC: 268,259 parameters; options of the class.

    Example
    -------
    >>> sum(p.numel() for p in mamba_mfcc_small().parameters())
    268259
    """
    return _size("small", n_classes, "mfcc", 40, options)


def mamba_mfcc_medium(n_classes=35, **options):
    """The published medium network on 40 MFCC: 1,183,651 parameters; options of the class.

    Example
    -------
    >>> sum(p.numel() for p in mamba_mfcc_medium().parameters())
    1183651
    """
    return _size("medium", n_classes, "mfcc", 40, options)


def mamba_mfcc_large(n_classes=35, **options):
    """The published large network on 40 MFCC: 3,053,411 parameters; options of the class.

    Example
    -------
    >>> sum(p.numel() for p in mamba_mfcc_large().parameters())
    3053411
    """
    return _size("large", n_classes, "mfcc", 40, options)
