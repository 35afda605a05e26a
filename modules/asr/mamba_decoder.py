"""The Mamba decoder: two unidirectional Mamba blocks a layer in place of self- and cross-attention.

The second block reads the encoder's output and then the tokens as one sequence, so that its state carries the
memory into every token. Source: Jiang et al., "Speech Slytherin: Examining the Performance and Efficiency of
Mamba for Speech Separation, Recognition, and Synthesis" (arXiv 2407.09732, section 2.3) and its published
code, whose parameter names are kept. What is added: padded memory is left out, and a state that
absorbs the memory once, after which a token costs the same at any position.
"""

from typing import NamedTuple

import torch
from speechbrain.nnet.attention import PositionalwiseFeedForward
from speechbrain.nnet.normalization import LayerNorm
from torch import nn

from modules.asr.decoder_step import layer_step, takes_step
from modules.fidelity import check_fidelity
from modules.ssm import Mamba, MambaState


class MambaDecoderState(NamedTuple):
    """What a decoder layer carries from token to token: the states of its two blocks."""

    self_state: MambaState
    cross_state: MambaState


class MambaDecoderLayer(nn.Module):
    """Mamba over the tokens, Mamba over memory and tokens, feed-forward, each on a residual.

    Arguments
    ---------
    d_model, d_ffn : int
        Channels, and inner channels of the feed-forward module.
    activation : type
        Of the feed-forward module.
    dropout : float
    normalize_before : bool
        Normalise what goes into each part (pre-norm), or each sum (post-norm).
    mamba_config : dict, optional
        Options of :class:`modules.ssm.Mamba`. A ``bidirectional`` among them is the encoder's: a decoder's
        blocks see the past only.

    Example
    -------
    >>> import torch
    >>> layer = MambaDecoderLayer(d_model=16, d_ffn=32)
    >>> tokens, memory = torch.randn(2, 4, 16), torch.randn(2, 10, 16)
    >>> layer(tokens, memory, join_memory(torch.tensor([10, 6]), 10, 4)).shape
    torch.Size([2, 4, 16])
    """

    def __init__(
        self,
        d_model,
        d_ffn,
        activation=nn.GELU,
        dropout=0.0,
        normalize_before=True,
        mamba_config=None,
    ):
        super().__init__()
        options = {k: v for k, v in (mamba_config or {}).items() if k != "bidirectional"}
        self.self_mamba = Mamba(d_model, **options)
        self.cross_mamba = Mamba(d_model, **options)
        self.pos_ffn = PositionalwiseFeedForward(
            d_ffn=d_ffn, input_size=d_model, dropout=dropout, activation=activation
        )
        self.norm1 = LayerNorm(d_model, eps=1e-6)
        self.norm2 = LayerNorm(d_model, eps=1e-6)
        self.norm3 = LayerNorm(d_model, eps=1e-6)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)
        self.dropout3 = nn.Dropout(dropout)
        self.normalize_before = normalize_before

    def forward(self, tgt, memory, joint=None):
        """Run the layer over whole token sequences.

        Arguments
        ---------
        tgt : torch.Tensor
            (batch, tokens, d_model).
        memory : torch.Tensor
            (batch, time, d_model).
        joint : (torch.Tensor, torch.Tensor), optional
            What :func:`join_memory` makes of the memory's lengths; ``None`` takes all of the memory.

        Returns
        -------
        torch.Tensor
            (batch, tokens, d_model).
        """
        tgt = self._add(tgt, self.self_mamba, self.norm1, self.dropout1)
        tgt = self._add(tgt, lambda x: self._cross(x, memory, joint), self.norm2, self.dropout2)
        return self._add(tgt, self.pos_ffn.ffn, self.norm3, self.dropout3)

    def step(self, tgt_t, state, parents=None, spare=None):
        """The layer's output (batch, d_model) for one token (batch, d_model) each, and the new state.

        ``parents`` and ``spare`` are those of :meth:`MambaDecoder.step`.
        """
        if parents is not None:
            if takes_step(self, tgt_t, state, parents):
                tgt_t, state = layer_step(self, tgt_t, state, parents, spare)
                return tgt_t, MambaDecoderState(*state)
            state = reorder_state(state, parents.clamp(min=0))
        self_state, cross_state = state

        def mix(x):
            nonlocal self_state
            y, self_state = self.self_mamba.step(x, self_state)
            return y

        def cross(x):
            nonlocal cross_state
            y, cross_state = self.cross_mamba.step(x, cross_state)
            return y

        tgt_t = self._add(tgt_t, mix, self.norm1, self.dropout1)
        tgt_t = self._add(tgt_t, cross, self.norm2, self.dropout2)
        tgt_t = self._add(tgt_t, self.pos_ffn.ffn, self.norm3, self.dropout3)
        return tgt_t, MambaDecoderState(self_state, cross_state)

    def _add(self, x, part, norm, dropout):
        """``part`` on its residual."""
        if self.normalize_before:
            return x + dropout(part(norm(x)))
        return norm(x + dropout(part(x)))

    def _cross(self, tgt, memory, joint):
        both = torch.cat([memory, tgt], dim=1)  # (batch, time + tokens, d_model)
        if joint is None:
            return self.cross_mamba(both)[:, memory.shape[1] :]
        order, tokens = (index.unsqueeze(-1).expand(-1, -1, both.shape[2]) for index in joint)
        return self.cross_mamba(both.gather(1, order)).gather(1, tokens)


class MambaDecoder(nn.Module):
    """A stack of Mamba decoder layers and a last normalisation, called like SpeechBrain's TransformerDecoder.

    Arguments
    ---------
    num_layers : int
    d_model, d_ffn, activation, dropout, normalize_before, mamba_config
        Of the layers, see :class:`MambaDecoderLayer`.
    fidelity : str
        ``corrected`` leaves padded memory out; ``upstream`` reads it, as the published decoder does.

    Raises
    ------
    ValueError
        If ``fidelity`` is neither.

    Example
    -------
    >>> import torch
    >>> decoder = MambaDecoder(num_layers=2, d_model=16, d_ffn=32).eval()
    >>> tokens, memory = torch.randn(2, 4, 16), torch.randn(2, 10, 16)
    >>> whole, _, _ = decoder(tokens, memory, memory_lengths=torch.tensor([10, 6]))
    >>> state = decoder.prefill(memory, torch.tensor([10, 6]))
    >>> first, state = decoder.step(tokens[:, 0], state)
    >>> torch.allclose(first, whole[:, 0], atol=1e-5)
    True
    """

    def __init__(
        self,
        num_layers,
        d_model,
        d_ffn,
        activation=nn.GELU,
        dropout=0.0,
        normalize_before=True,
        mamba_config=None,
        fidelity="corrected",
    ):
        super().__init__()
        self.fidelity = check_fidelity(fidelity)
        self.layers = nn.ModuleList(
            MambaDecoderLayer(d_model, d_ffn, activation, dropout, normalize_before, mamba_config)
            for _ in range(num_layers)
        )
        self.norm = LayerNorm(d_model, eps=1e-6)

    def forward(
        self,
        tgt,
        memory,
        tgt_mask=None,
        memory_mask=None,
        tgt_key_padding_mask=None,
        memory_key_padding_mask=None,
        pos_embs_tgt=None,
        pos_embs_src=None,
        *,
        memory_lengths=None,
    ):
        """Decode whole token sequences.

        Arguments
        ---------
        tgt : torch.Tensor
            (batch, tokens, d_model).
        memory : torch.Tensor
            (batch, time, d_model), the encoder's output.
        tgt_mask, memory_mask, tgt_key_padding_mask, pos_embs_tgt, pos_embs_src
            Taken because SpeechBrain's transformer passes them; the blocks see no future, so that padded
            tokens disturb nobody.
        memory_key_padding_mask : torch.Tensor, optional
            (batch, time), true on padding: another way to give the lengths.
        memory_lengths : torch.Tensor, optional
            (batch,) integer frame counts.

        Returns
        -------
        (torch.Tensor, list, list)
            (batch, tokens, d_model); and ``None`` for the attention weights that each layer does not have.
        """
        if memory_lengths is None and memory_key_padding_mask is not None:
            memory_lengths = (~memory_key_padding_mask).sum(1)
        joint = None
        if memory_lengths is not None and self.fidelity == "corrected":
            lengths = memory_lengths.to(memory.device)
            joint = join_memory(lengths, memory.shape[1], tgt.shape[1])
        for layer in self.layers:
            tgt = layer(tgt, memory, joint)
        none = [None] * len(self.layers)
        return self.norm(tgt), none, list(none)

    def prefill(self, memory, memory_lengths=None, state=None):
        """The state before the first token: every layer's second block absorbs the memory, once.

        Arguments
        ---------
        memory : torch.Tensor
            (batch, time, d_model).
        memory_lengths : torch.Tensor, optional
            (batch,) integer frame counts; ``upstream`` reads padding all the same.
        state : list, optional
            From an earlier call, whose memory goes on in this one; left as it was.

        Returns
        -------
        list
            A :class:`MambaDecoderState` for each layer; see :func:`reorder_state`.
        """
        lengths = None if self.fidelity == "upstream" else memory_lengths
        before = [None] * len(self.layers) if state is None else [one.cross_state for one in state]
        return [
            MambaDecoderState(
                layer.self_mamba.initial_state(memory.shape[0]),
                layer.cross_mamba.final_state(memory, lengths, cross_state),
            )
            for layer, cross_state in zip(self.layers, before, strict=True)
        ]

    def step(self, tgt_t, state, parents=None, spare=None):
        """Decode one token of each hypothesis.

        Arguments
        ---------
        tgt_t : torch.Tensor
            (batch, d_model).
        state : list
            From :meth:`prefill` or the last step.
        parents : torch.Tensor, optional
            (batch,) integers: the hypothesis in ``state`` that each token follows. Under 0 nobody reads the result,
            and it may be anything. Without it each token follows the hypothesis of its own number.
        spare : list, optional
            A state that nobody needs any more. Its memory may hold the new state.

        Returns
        -------
        (torch.Tensor, list)
            (batch, d_model), and the state after the token; the one given is left as it was.
        """
        new_state, spare = [], spare or [None] * len(self.layers)
        for layer, layer_state, unused in zip(self.layers, state, spare, strict=True):
            tgt_t, layer_state = layer.step(tgt_t, layer_state, parents, unused)
            new_state.append(layer_state)
        return self.norm(tgt_t), new_state


def join_memory(lengths, time, tokens):
    """How to line up each utterance's valid memory and its tokens with nothing between them.

    Arguments
    ---------
    lengths : torch.Tensor
        (batch,) integer frame counts of the memory.
    time, tokens : int
        Frames of the padded memory, and tokens after it.

    Returns
    -------
    (torch.Tensor, torch.Tensor)
        (batch, time + tokens): where in ``[memory | tokens]`` each frame of ``[valid memory | tokens | padding]`` is
        found; and (batch, tokens), where in the latter the tokens are. A causal block over that order needs
        no lengths: padding stands behind all that is read.

    Example
    -------
    >>> import torch
    >>> order, tokens = join_memory(torch.tensor([3, 1]), 3, 2)
    >>> order.tolist(), tokens.tolist()
    ([[0, 1, 2, 3, 4], [0, 3, 4, 1, 2]], [[3, 4], [1, 2]])
    """
    lengths = lengths.unsqueeze(1)
    at = torch.arange(time + tokens, device=lengths.device).unsqueeze(0)
    order = torch.where(at < lengths + tokens, time + at - lengths, at - tokens)
    order = torch.where(at < lengths, at, order)
    return order, lengths + at[:, :tokens]


def reorder_state(state, index):
    """Every tensor of a nested state, selected along the batch.

    Arguments
    ---------
    state : torch.Tensor, tuple, list, dict or other
        Tensors (batch, ...), nested at will; what is no tensor stays as it is.
    index : torch.Tensor
        (new batch,) integers; an index may come any number of times, which repeats a state for a beam.

    Returns
    -------
    The same structure with tensors (new batch, ...).

    Example
    -------
    >>> import torch
    >>> state = [MambaState(torch.arange(3.0), torch.zeros(3, 2)), 7]
    >>> state = reorder_state(state, torch.tensor([2, 2, 0, 1]))
    >>> state[0].conv.tolist(), state[0].ssm.shape, state[1]
    ([2.0, 2.0, 0.0, 1.0], torch.Size([4, 2]), 7)
    """
    if isinstance(state, torch.Tensor):
        return state.index_select(0, index)
    if isinstance(state, dict):
        return {key: reorder_state(value, index) for key, value in state.items()}
    if isinstance(state, (tuple, list)):
        values = [reorder_state(value, index) for value in state]
        return type(state)(*values) if hasattr(state, "_fields") else type(state)(values)
    return state
