"""The ConMamba encoder: Conformer with a bidirectional Mamba block where attention was.

Source: Jiang et al., "Speech Slytherin: Examining the Performance and Efficiency of Mamba for Speech
Separation, Recognition, and Synthesis" (arXiv 2407.09732, section 2.3) and its published code, whose
parameter names are kept.
"""

import torch
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.attention import PositionalwiseFeedForward
from speechbrain.nnet.normalization import LayerNorm
from torch import nn

from modules.convolution import MaskedConvolutionModule
from modules.encoder import LayerLoop
from modules.fidelity import check_fidelity
from modules.memory_reuse import activate, in_blocks
from modules.one_chunk import layer_chunk, takes_one_chunk
from modules.one_frame import layer_frame, takes_one_frame
from modules.ssm import ChunkedBiMamba, Mamba
from modules.ssm.masking import valid_frames


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
        return in_blocks(self._half_step, x, self.training)

    def _half_step(self, x):
        norm, feed_forward, drop = self
        widen, activation, inner_drop, narrow = feed_forward.ffn
        inner = inner_drop(activate(activation, widen(norm(x))))
        return torch.add(x, drop(narrow(inner)), alpha=0.5)


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
        self.mamba = (ChunkedBiMamba if bidirectional else Mamba)(d_model, **options)
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
        dynchunktrain_config : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            Chunks whose end hides the future from the convolution and from Mamba's backward branch. The past is
            never limited: ``left_context_size`` is not read.
        state : (MambaState, torch.Tensor), optional
            What the previous call returned, of a causal layer or with chunks.
        return_state : bool
            Also return the state after the last valid frame, of a causal layer or with chunks.

        Returns
        -------
        torch.Tensor or (torch.Tensor, tuple)
            (batch, time, d_model); frames past the lengths hold nothing of use and disturb nothing.
        """
        if return_state and takes_one_frame(self, x, lengths, state):
            return layer_frame(self, x, state)
        if return_state and takes_one_chunk(self, x, lengths, dynchunktrain_config, state):
            return layer_chunk(self, x, state)
        mamba_state, conv_state = (None, None) if state is None else state
        valid = valid_frames(lengths, x.shape[1], x.device)
        padding = None if valid is None else ~valid.unsqueeze(-1)
        x = self.ffn_module1(x)
        options = {}
        if dynchunktrain_config is not None and isinstance(self.mamba, ChunkedBiMamba):
            options["chunk_size"] = dynchunktrain_config.chunk_size
        mixed, mamba_state = self.mamba(
            self.norm1(x), lengths, state=mamba_state, return_state=True, **options
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


class ConmambaEncoder(LayerLoop, nn.Module):
    """A stack of ConMamba layers and a last normalisation.

    Arguments
    ---------
    num_layers, d_model, d_ffn, kernel_size, activation, bias, dropout, causal, mamba_config
        Of the layers, see :class:`ConmambaEncoderLayer`.
    fidelity : str
        ``corrected`` keeps padding out; ``upstream`` lets it in, as the published encoder does.
    gradient_checkpointing : bool
        Whether layers recompute their activations for the gradients, see :class:`modules.encoder.LayerLoop`.

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

    def layer_options(self, src, src_mask, padding, pos_embs, dynchunktrain_config, lengths):
        """Frame counts and chunks: all that a layer takes besides its input."""
        if self.fidelity == "upstream":
            lengths = None
        elif lengths is None and padding is not None:
            lengths = (~padding).sum(1)
        return {"lengths": lengths, "dynchunktrain_config": dynchunktrain_config}

    def forward_chunk(self, src, state=None, lengths=None, dynchunktrain_config=None):
        """Encode the next frames of each utterance with a causal encoder, or with any encoder over chunks.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, d_model): any number of frames of a causal encoder, otherwise whole chunks. A last chunk may
            be shorter, and nothing follows it.
        state : list, optional
            What the previous call returned; ``None`` at an utterance's start.
        lengths : torch.Tensor, optional
            (batch,) integer frame counts within these frames.
        dynchunktrain_config : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            Chunks of an encoder that is not causal.

        Returns
        -------
        (torch.Tensor, list)
            (batch, time, d_model), equal to the frames that the whole utterance would give, and the state.

        Raises
        ------
        ValueError
            If the encoder is not causal and has no chunks.
        """
        new_state = []
        for index, layer in enumerate(self.layers):
            src, layer_state = layer(
                src,
                lengths,
                dynchunktrain_config,
                state=None if state is None else state[index],
                return_state=True,
            )
            new_state.append(layer_state)
        return self.norm(src), new_state
