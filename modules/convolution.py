"""Conformer's convolution module with padding masked before its depthwise convolution.

ConMamba and the Conformer baseline share it. Source: Gulati et al., "Conformer" (arXiv 2005.08100, section 2.2), by
SpeechBrain's implementation, whose parameter names are kept.
"""

import torch
from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule
from torch.nn import functional as F

from modules.memory_reuse import activate
from modules.ssm import causal_conv1d, depthwise_conv1d


class MaskedConvolutionModule(ConvolutionModule):
    """Conformer's convolution module, blind to padding.

    SpeechBrain's masks its output only, so that the depthwise convolution carries what the bias and the
    normalisation make of padding into the last valid frames. Arguments are SpeechBrain's (dilation 1).

    Example
    -------
    >>> import torch
    >>> module = MaskedConvolutionModule(16, kernel_size=7)
    >>> padding = torch.arange(10).view(1, 10, 1) >= torch.tensor([10, 6]).view(2, 1, 1)
    >>> module(torch.randn(2, 10, 16), padding).shape
    torch.Size([2, 10, 16])
    """

    def forward(self, x, mask=None, dynchunktrain_config=None, state=None, return_state=False):
        """Run the module.

        Arguments
        ---------
        x : torch.Tensor
            (batch, time, channels).
        mask : torch.Tensor, optional
            (batch, time, 1), true on padding.
        dynchunktrain_config : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            Hide everything right of each chunk (not with ``causal``).
        state : torch.Tensor, optional
            (batch, channels, frames), the last inputs of the depthwise convolution: ``kernel_size - 1`` frames with
            ``causal``, and half as many with chunks.
        return_state : bool
            Also return that state after the last valid frame.

        Returns
        -------
        torch.Tensor or (torch.Tensor, torch.Tensor)
            (batch, time, channels), zero on padding.

        Raises
        ------
        ValueError
            If a state is asked of a module that is not causal and has no chunks, or chunks of one that is causal.
        """
        chunked = dynchunktrain_config is not None
        if (state is not None or return_state) and not (self.causal or chunked):
            raise ValueError(
                "only a causal convolution module, or one with chunks, carries a state: build it with causal=True, or "
                "give dynchunktrain_config"
            )
        # the pointwise convolution as what it is, so that channels stay last all the way
        pointwise = self.bottleneck[0]
        out = F.linear(self.layer_norm(x), pointwise.weight.squeeze(-1), pointwise.bias)
        out = F.glu(out, dim=-1)  # (batch, time, channels)
        if mask is not None:
            out = out.masked_fill(mask, 0.0)
        lengths = None if mask is None else (~mask).sum((1, 2))
        new_state = None
        if chunked:
            out, new_state = self._chunked(
                out.transpose(1, 2), dynchunktrain_config.chunk_size, lengths, state
            )
        elif self.causal:
            out, new_state = causal_conv1d(
                out,
                self.conv.weight,
                self.conv.bias,
                lengths=lengths,
                # the operator carries one frame more than it reads
                initial_state=None if state is None else F.pad(state, (1, 0)),
                return_last_state=True,
            )
            new_state = new_state[..., 1:]
        else:
            ahead = self.kernel_size - 1 - self.padding
            out = depthwise_conv1d(out, self.conv.weight, self.conv.bias, ahead=ahead)
        norm, activation, pointwise, drop = self.after_conv
        out = drop(pointwise(activate(activation, norm(out))))
        if mask is not None:
            out = out.masked_fill(mask, 0.0)
        # a copy of the state, since a view would keep all frames
        return (out, new_state.clone()) if return_state else out

    def _chunked(self, x, chunk, lengths, state):
        """The depthwise convolution with zeros in place of frames right of each chunk, and the state to carry.

        From (batch, channels, time) to (batch, time, channels). Source: Li et al., "Dynamic Chunk Convolution for
        Unified Streaming and Non-Streaming Conformer ASR" (arXiv 2304.09325, section 3).
        """
        if self.causal:
            raise ValueError("a causal convolution module sees no future: it takes no chunks")
        batch, channels, time = x.shape
        # a chunk beyond the end would be padding alone
        chunk = min(chunk, time)
        past = x.new_zeros(batch, channels, self.padding) if state is None else state.to(x)
        x = torch.cat([past, x], 2)
        chunks = F.pad(x, (0, -time % chunk)).unfold(2, chunk + self.padding, chunk)
        ahead = self.kernel_size - 1 - self.padding
        chunks = F.pad(chunks, (0, ahead)).transpose(1, 2).flatten(0, 1)
        out = F.conv1d(chunks, self.conv.weight, self.conv.bias, groups=channels)
        out = out.transpose(1, 2).reshape(batch, -1, channels)[:, :time]
        if lengths is None:
            return out, x[..., time:]
        last = lengths.view(-1, 1, 1) + torch.arange(self.padding, device=x.device)
        return out, x.gather(2, last.expand(-1, channels, -1))
