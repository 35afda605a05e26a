"""The ConMamba encoder: Conformer with a bidirectional Mamba block where attention was.

Source: Jiang et al., "Speech Slytherin: Examining the Performance and Efficiency of Mamba for Speech
Separation, Recognition, and Synthesis" (arXiv 2407.09732, section 2.3) and its published code, whose
parameter names are kept. The convolution module is SpeechBrain's, with padding masked before its
depthwise convolution.
"""

import torch
from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.attention import PositionalwiseFeedForward
from speechbrain.nnet.normalization import LayerNorm
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from modules.fidelity import check_fidelity
from modules.ssm import BiMamba, Mamba, causal_conv1d, depthwise_conv1d
from modules.ssm.masking import valid_frames

# Frames that a feed-forward module takes at a time where it may. Large tensors that come and go cost
# more than what is computed in them: the system has to find and clear their pages every time.
_FRAMES = 512


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
        out = drop(pointwise(_activate(activation, norm(out))))
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
        pieces = F.pad(x, (self.padding, -time % chunk)).unfold(2, chunk + self.padding, chunk)
        pieces = F.pad(pieces, (0, self.padding)).transpose(1, 2).flatten(0, 1)
        out = F.conv1d(pieces, self.conv.weight, self.conv.bias, groups=channels)
        return out.transpose(1, 2).reshape(batch, -1, channels)[:, :time]


class HalfFeedForward(nn.Sequential):
    """Half a step of Conformer's feed-forward module on its residual: ``x + 0.5 * feed_forward(x)``.

    Source: Gulati et al., "Conformer" (arXiv 2005.08100, section 2.4). Parameter names are SpeechBrain's.

    Arguments
    ---------
    d_model, d_ffn : int
        Channels, and inner channels.
    dropout : float
    activation : type

    Example
    -------
    >>> import torch
    >>> HalfFeedForward(16, 32, 0.1, Swish)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, d_model, d_ffn, dropout, activation):
        super().__init__(
            nn.LayerNorm(d_model),
            PositionalwiseFeedForward(
                d_ffn=d_ffn, input_size=d_model, dropout=dropout, activation=activation
            ),
            nn.Dropout(dropout),
        )

    def forward(self, x):
        """Take (batch, time, d_model) half a step on."""
        # not in training: in pieces dropout draws other masks, and reentrant checkpointing runs once
        # without gradients, then with them. Asked in this order: a compiler that keeps the number of
        # frames open must not meet it here.
        alone = _nothing_watches() and not self.training
        if alone and x.device.type == "cpu" and x.shape[1] > _FRAMES:
            return torch.cat([self._half_step(frames) for frames in x.split(_FRAMES, 1)], 1)
        return self._half_step(x)

    def _half_step(self, x):
        norm, feed_forward, drop = self
        widen, activation, inner_drop, narrow = feed_forward.ffn
        inner = inner_drop(_activate(activation, widen(norm(x))))
        return torch.add(x, drop(narrow(inner)), alpha=0.5)


def _activate(activation, x):
    """``activation(x)``, written over ``x`` where only the result will be read."""
    if _nothing_watches():
        if type(activation) is nn.GELU:
            return torch.ops.aten.gelu_(x, approximate=activation.approximate)
        if type(activation) is Swish and activation.beta == 1:
            return F.silu(x, inplace=True)
    return activation(x)


def _nothing_watches():
    """Whether operations just run, neither differentiated nor recorded by a compiler or tracer."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not torch.is_grad_enabled() and not recorded


class ConmambaEncoderLayer(nn.Module):
    """Half a feed-forward, Mamba, convolution, half a feed-forward, each on a residual.

    Arguments
    ---------
    d_model, d_ffn : int
        Channels, and inner channels of the feed-forward modules.
    kernel_size : int
        Width of the depthwise convolution in frames.
    activation : type
        Activation of feed-forward and convolution modules.
    bias : bool
        Biases in the convolution module.
    dropout : float
    causal : bool
        Unidirectional Mamba and a left-padded convolution: a frame's output ignores all later frames.
    mamba_config : dict, optional
        Options of :class:`modules.ssm.Mamba`, and ``bidirectional`` (default true; ``causal`` overrides it).
        ``bidirectional: False`` alone leaves the convolution symmetric.

    Example
    -------
    >>> import torch
    >>> layer = ConmambaEncoderLayer(d_model=16, d_ffn=32, kernel_size=7)
    >>> layer(torch.randn(2, 10, 16), torch.tensor([10, 6])).shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        d_model,
        d_ffn,
        kernel_size=31,
        activation=Swish,
        bias=True,
        dropout=0.0,
        causal=False,
        mamba_config=None,
    ):
        super().__init__()
        options = dict(mamba_config or {})
        bidirectional = options.pop("bidirectional", True) and not causal
        self.mamba = (BiMamba if bidirectional else Mamba)(d_model, **options)
        self.convolution_module = MaskedConvolutionModule(
            d_model, kernel_size, bias, activation, dropout, causal=causal
        )
        self.ffn_module1 = HalfFeedForward(d_model, d_ffn, dropout, activation)
        self.ffn_module2 = HalfFeedForward(d_model, d_ffn, dropout, activation)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, lengths=None, dynchunktrain_config=None, state=None, return_state=False):
        """Run the layer.

        Arguments
        ---------
        x : torch.Tensor
            (batch, time, d_model).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts.
        dynchunktrain_config : optional
            Chunks for the convolution module.
        state : (MambaState, torch.Tensor), optional
            What the previous chunk returned, of a causal layer.
        return_state : bool
            Also return the state after the last valid frame, of a causal layer.

        Returns
        -------
        torch.Tensor or (torch.Tensor, tuple)
            (batch, time, d_model); frames past the lengths hold nothing of use and disturb nothing.
        """
        mamba_state, conv_state = (None, None) if state is None else state
        valid = valid_frames(lengths, x.shape[1], x.device)
        padding = None if valid is None else ~valid.unsqueeze(-1)
        x = self.ffn_module1(x)
        mixed, mamba_state = self.mamba(
            self.norm1(x), lengths, state=mamba_state, return_state=True
        )
        x = x + self.drop(mixed)
        convolved = self.convolution_module(
            x, padding, dynchunktrain_config, conv_state, return_state
        )
        if return_state:
            convolved, conv_state = convolved
        x = x + convolved
        x = self.norm2(self.ffn_module2(x))
        return (x, (mamba_state, conv_state)) if return_state else x


def run_layer(layer, *args, checkpointed, **options):
    """``layer(*args, **options)``, in training with its inner activations computed again for the gradients if
    ``checkpointed``; dropout then draws the same masks again.
    """
    if checkpointed and layer.training and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False, **options)
    return layer(*args, **options)


class ConmambaEncoder(nn.Module):
    """A stack of ConMamba layers and a last normalisation.

    Arguments
    ---------
    num_layers, d_model, d_ffn, kernel_size, activation, bias, dropout, causal, mamba_config
        Of the layers, see :class:`ConmambaEncoderLayer`.
    fidelity : str
        ``corrected`` keeps padding out; ``upstream`` lets it in, as the published encoder does.
    gradient_checkpointing : bool
        In training keep each layer's input only and compute what lies within again for the gradients: less
        memory, more time, the same gradients.

    Raises
    ------
    ValueError
        If ``fidelity`` is neither.

    Example
    -------
    >>> import torch
    >>> encoder = ConmambaEncoder(num_layers=2, d_model=16, d_ffn=32, kernel_size=7)
    >>> out, _ = encoder(torch.randn(2, 10, 16), lengths=torch.tensor([10, 6]))
    >>> out.shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        num_layers,
        d_model,
        d_ffn,
        kernel_size=31,
        activation=Swish,
        bias=True,
        dropout=0.0,
        causal=False,
        mamba_config=None,
        fidelity="corrected",
        gradient_checkpointing=False,
    ):
        super().__init__()
        self.fidelity = check_fidelity(fidelity)
        self.gradient_checkpointing = gradient_checkpointing
        self.layers = nn.ModuleList(
            ConmambaEncoderLayer(
                d_model, d_ffn, kernel_size, activation, bias, dropout, causal, mamba_config
            )
            for _ in range(num_layers)
        )
        self.norm = LayerNorm(d_model, eps=1e-6)

    def forward(
        self,
        src,
        src_mask=None,
        src_key_padding_mask=None,
        pos_embs=None,
        dynchunktrain_config=None,
        *,
        lengths=None,
        hidden_after=None,
    ):
        """Encode whole utterances.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, d_model).
        src_mask, pos_embs
            Taken because SpeechBrain's transformer passes them; Mamba has no use for them.
        src_key_padding_mask : torch.Tensor, optional
            (batch, time), true on padding: another way to give the lengths.
        dynchunktrain_config : optional
            Chunks for the convolution modules.
        lengths : torch.Tensor, optional
            (batch,) integer frame counts.
        hidden_after : int, optional
            Also return the normalised output of this layer, counted from 1.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            (batch, time, d_model) twice; the second is that of ``hidden_after``.
        """
        if self.fidelity == "upstream":
            lengths = None
        elif lengths is None and src_key_padding_mask is not None:
            lengths = (~src_key_padding_mask).sum(1)
        hidden = None
        for index, layer in enumerate(self.layers, start=1):
            src = run_layer(
                layer, src, lengths, dynchunktrain_config, checkpointed=self.gradient_checkpointing
            )
            if index == hidden_after:
                hidden = self.norm(src)
        return self.norm(src), hidden

    def forward_chunk(self, src, state=None, lengths=None):
        """Encode the next chunk of each utterance with a causal encoder.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, d_model).
        state : list, optional
            What the previous chunk returned; ``None`` at an utterance's start.
        lengths : torch.Tensor, optional
            (batch,) integer frame counts within this chunk.

        Returns
        -------
        (torch.Tensor, list)
            (batch, time, d_model), equal to the frames that the whole utterance would give, and the state.
        """
        new_state = []
        for index, layer in enumerate(self.layers):
            src, layer_state = layer(
                src, lengths, state=None if state is None else state[index], return_state=True
            )
            new_state.append(layer_state)
        return self.norm(src), new_state
