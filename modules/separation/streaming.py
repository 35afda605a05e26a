"""Separation along a stream: a causal network takes blocks of any length and carries what it needs between them.

What is carried has a fixed size: the samples that the next frame of the encoder still needs, the states of the Mamba
blocks, and the decoder's last, unfinished samples. All blocks together give what the whole mixture gives.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from modules.separation.mask_net import MaskNet
from modules.separation.separator import encoded_frames
from modules.ssm import MambaState


class SeparationState(NamedTuple):
    """What a stream of mixtures carries from block to block.

    ``unfinished`` (batch, fewer than the kernel) holds the samples read whose sources are not given yet; ``stack``
    the states of the Mamba blocks; ``overlap`` (batch, kernel - stride, speakers) what the frames so far add to
    sources that the next frames still change.
    """

    unfinished: torch.Tensor
    stack: list[MambaState]
    overlap: torch.Tensor


class StreamingSeparator:
    """A causal separator that reads a stream block by block.

    A sample's sources are given once ``latency - 1`` samples after it have been read, those that share a frame of
    the encoder with it; at the end of the stream :meth:`finish` gives the rest. The streams of a batch run in step.

    Arguments
    ---------
    separator : modules.separation.separator.SeparationNetwork
        With a :class:`modules.separation.mask_net.MaskNet` that is not bidirectional. Used as it is: neither
        copied, nor moved, nor set to evaluation.

    Attributes
    ----------
    latency : int
        Samples of the algorithmic latency, the encoder's kernel size: 2 ms for the published 16 at 8 kHz. The
        time that computing takes comes on top.

    Raises
    ------
    ValueError
        If the network reads ahead, as a bidirectional or a dual-path one does, or the decoder has a bias.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.models.dual_path import Decoder, Encoder
    >>> from modules.separation.mask_net import MaskNet
    >>> from modules.separation.separator import SeparationNetwork
    >>> from modules.separation.streaming import StreamingSeparator
    >>> decoder = Decoder(16, 1, kernel_size=16, stride=8, bias=False)
    >>> masknet = MaskNet(16, 16, n_spk=2, n_mamba=1, bidirectional=False)
    >>> separator = SeparationNetwork(Encoder(16, 16), masknet, decoder).eval()
    >>> stream = StreamingSeparator(separator)
    >>> mix, state, sources = torch.randn(1, 100), stream.initial_state(1), []
    >>> for block in mix.split(30, dim=1):
    ...     ready, state = stream.push(block, state)
    ...     sources.append(ready)
    >>> sources = torch.cat([*sources, stream.finish(state)], dim=1)
    >>> torch.allclose(sources, separator(mix), atol=1e-5)
    True
    """

    def __init__(self, separator):
        check_causal(separator)
        self.separator = separator
        self.latency = separator.kernel_size

    def initial_state(self, batch):
        """The state before the first sample of ``batch`` streams, with the type and device of the weights."""
        separator = self.separator
        weight = separator.decoder.weight
        tail = separator.kernel_size - separator.stride
        return SeparationState(
            weight.new_zeros(batch, 0),
            [layer["mixer"].initial_state(batch) for layer in separator.masknet.mamba_net.layers],
            weight.new_zeros(batch, tail, separator.num_spks),
        )

    @torch.no_grad()
    def push(self, block, state):
        """Read the next samples of each stream.

        Arguments
        ---------
        block : torch.Tensor
            (batch, samples), any number of samples, also none; the work and memory of a call grow with it.
        state : SeparationState
            Of :meth:`initial_state` or of the last call; left as it was.

        Returns
        -------
        (torch.Tensor, SeparationState)
            Sources (batch, ready samples, speakers), which go on where the last call's ended, and the state. No
            gradient is kept.

        Raises
        ------
        ValueError
            If the block is not (batch, samples) of as many streams as the state.
        """
        batch = state.overlap.shape[0]
        if block.dim() != 2 or block.shape[0] != batch:
            raise ValueError(
                f"a block must be (batch, samples) with the state's batch of {batch}; got {tuple(block.shape)}"
            )
        separator = self.separator
        samples = torch.cat([state.unfinished, block], dim=1)
        frames = encoded_frames(samples.shape[1], separator.kernel_size, separator.stride)
        if frames == 0:
            nothing = block.new_zeros(batch, 0, separator.num_spks)
            return nothing, state._replace(unfinished=samples)
        encoded = separator.encoder(samples)  # (batch, channels, frames)
        masks, stack = separator.masknet(encoded, states=state.stack, return_states=True)
        ready, tail = frames * separator.stride, state.overlap.shape[1]
        sources = separator.decode(encoded * masks, ready + tail).contiguous()
        sources[:, :tail] += state.overlap
        # copies, since a view would keep the whole block
        return sources[:, :ready], SeparationState(
            samples[:, ready:].clone(),
            [MambaState(one.conv.clone(), one.ssm.clone()) for one in stack],
            sources[:, ready:].clone(),
        )

    def finish(self, state):
        """The sources of the samples that the last block left, at the end of the streams.

        Arguments
        ---------
        state : SeparationState
            Of the last :meth:`push`.

        Returns
        -------
        torch.Tensor
            (batch, samples, speakers), fewer than ``latency``; zeros where no frame reaches, as at the end of a whole
            mixture.
        """
        rest = state.unfinished.shape[1]
        tail = state.overlap[:, :rest]
        return F.pad(tail, (0, 0, 0, rest - tail.shape[1]))


def check_causal(separator):
    """Raise ``ValueError`` unless ``separator`` can run along a stream: causal, and a decoder without bias."""
    masknet = separator.masknet
    if not isinstance(masknet, MaskNet) or masknet.bidirectional:
        raise ValueError(
            f"{type(masknet).__name__} reads the whole mixture before its first sample and cannot run along a stream: "
            "train a Mamba-TasNet (MaskNet) with bidirectional: False, or separate in windows"
        )
    if separator.decoder.bias is not None:
        raise ValueError(
            "the decoder has a bias, which blocks that overlap would add twice: build it with bias=False, as published"
        )
