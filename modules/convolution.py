"""Conformer's convolution module with padding masked before its depthwise convolution.

ConMamba and the Conformer baseline share it. Source: Gulati et al., "Conformer" (arXiv 2005.08100, section 2.2), by
SpeechBrain's implementation, whose parameter names are kept.
"""

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
            (batch, channels, kernel_size), the last inputs of the depthwise convolution; ``causal`` only.
        return_state : bool
            Also return that state after the last valid frame.

        Returns
        -------
        torch.Tensor or (torch.Tensor, torch.Tensor)
            (batch, time, channels), zero on padding.

        Raises
        ------
        ValueError
            If a state is asked of a module that is not causal, or chunks of one that is.
        """
        if (state is not None or return_state) and not self.causal:
            raise ValueError(
                "only a causal convolution module carries a state: build it with causal=True"
            )
        # the pointwise convolution as what it is, so that channels stay last all the way
        pointwise = self.bottleneck[0]
        out = F.linear(self.layer_norm(x), pointwise.weight.squeeze(-1), pointwise.bias)
        out = F.glu(out, dim=-1)  # (batch, time, channels)
        if mask is not None:
            out = out.masked_fill(mask, 0.0)
        new_state = None
        if dynchunktrain_config is not None:
            out = self._chunked(out.transpose(1, 2), dynchunktrain_config.chunk_size)
        elif self.causal:
            out, new_state = causal_conv1d(
                out,
                self.conv.weight,
                self.conv.bias,
                lengths=None if mask is None else (~mask).sum((1, 2)),
                initial_state=state,
                return_last_state=True,
            )
        else:
            ahead = self.kernel_size - 1 - self.padding
            out = depthwise_conv1d(out, self.conv.weight, self.conv.bias, ahead=ahead)
        norm, activation, pointwise, drop = self.after_conv
        out = drop(pointwise(activate(activation, norm(out))))
        if mask is not None:
            out = out.masked_fill(mask, 0.0)
        return (out, new_state) if return_state else out

    def _chunked(self, x, chunk):
        """The depthwise convolution with zeros in place of frames right of each chunk, (batch, time, channels).

        Source: Li et al., "Dynamic Chunk Convolution for Unified Streaming and Non-Streaming Conformer ASR" (arXiv
        2304.09325, section 3).
        """
        if self.causal:
            raise ValueError("a causal convolution module sees no future: it takes no chunks")
        batch, channels, time = x.shape
        chunks = F.pad(x, (self.padding, -time % chunk)).unfold(2, chunk + self.padding, chunk)
        chunks = F.pad(chunks, (0, self.padding)).transpose(1, 2).flatten(0, 1)
        out = F.conv1d(chunks, self.conv.weight, self.conv.bias, groups=channels)
        return out.transpose(1, 2).reshape(batch, -1, channels)[:, :time]
