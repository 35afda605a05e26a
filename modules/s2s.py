"""Sequence-to-sequence recognisers: an encoder, a decoder over tokens, and CTC beside it.

The transformer is SpeechBrain's TransformerASR with other parts in its places: a ConMamba or Conformer encoder
that counts frames, and a Transformer or Mamba decoder. The recogniser around it is one network, so that
one DistributedDataParallel wraps it. Source: Jiang et al., "Speech Slytherin" (arXiv 2407.09732,
section 2.3) and its published recipes, whose module names are kept.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from speechbrain.lobes.models.transformer.Transformer import (
    get_key_padding_mask,
    get_lookahead_mask,
)
from speechbrain.lobes.models.transformer.TransformerASR import (
    TransformerASR,
    TransformerASRStreamingContext,
    make_transformer_src_mask,
)
from speechbrain.nnet.activations import Swish
from torch import nn

from modules.conformer import ConformerEncoder
from modules.conmamba import ConmambaEncoder
from modules.ctc import Recognizer
from modules.fidelity import check_fidelity, initialise_transformer_
from modules.mamba_decoder import MambaDecoder
from modules.ssm.lengths import valid_frames

ENCODERS = ("conmamba", "conformer")
DECODERS = ("transformer", "mamba")
ATTENTIONS = ("RelPosMHAXL", "RoPEMHA", "regularMHA")


class DecodingState(NamedTuple):
    """What decoding carries from token to token: how many tokens were read, and the decoder's state."""

    position: int
    decoder: list


@dataclass
class ConmambaStreamingContext:
    """What a causal ConMamba encoder carries from chunk to chunk: frames read, and the layers' states."""

    frames: int = 0
    state: list | None = None


class S2STransformer(TransformerASR):
    """Encoder and decoder of a sequence-to-sequence recogniser.

    Arguments
    ---------
    tgt_vocab : int
        Number of tokens.
    input_size : int
        Features a frame after subsampling.
    d_model, nhead, num_encoder_layers, num_decoder_layers, d_ffn, dropout, kernel_size, bias
        Of encoder and decoder.
    activation : type
        Of the decoder and of ConMamba.
    encoder_module : str
        ``conmamba`` or ``conformer``.
    decoder_module : str
        ``transformer`` or ``mamba``.
    attention_type : str
        Of the Conformer: ``RelPosMHAXL``, ``RoPEMHA`` or ``regularMHA``. With the last, absolute positions are added
        to what the encoder takes, ConMamba too, as published.
    normalize_before : bool
        Of the decoder; the encoders normalise first in any case.
    max_length : int
        Rows of the table of absolute positions: the longest token sequence (and with ``regularMHA`` the longest
        utterance in frames).
    causal : bool
        An encoder that sees no future.
    mamba_config : dict, optional
        Options of :class:`modules.ssm.Mamba`; ``bidirectional`` among them is the encoder's.
    gradient_checkpointing : bool
        Of the encoder, see :class:`modules.conmamba.ConmambaEncoder`.
    fidelity : str
        ``corrected`` or ``upstream``.
    conformer_activation : type
        Of the Conformer; the published recipes leave it at Swish.

    Raises
    ------
    ValueError
        If ``encoder_module``, ``decoder_module``, ``attention_type`` or ``fidelity`` is unknown, or a number of layers
        is below 1.

    Example
    -------
    >>> import torch
    >>> net = S2STransformer(20, 40, 16, 2, 2, 1, 32, kernel_size=7, decoder_module="mamba").eval()
    >>> frames, tokens = torch.tensor([10, 6]), torch.tensor([[1, 5, 6], [1, 7, 0]])
    >>> memory, out = net(torch.randn(2, 10, 40), tokens, frames=frames)
    >>> memory.shape, out.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 3, 16]))
    >>> first, state = net.decode_step(tokens[:, 0], net.start_decoding(memory, frames))
    >>> torch.allclose(first, out[:, 0], atol=1e-5)
    True
    """

    def __init__(
        self,
        tgt_vocab,
        input_size,
        d_model=512,
        nhead=8,
        num_encoder_layers=12,
        num_decoder_layers=6,
        d_ffn=2048,
        dropout=0.1,
        activation=nn.GELU,
        encoder_module="conmamba",
        decoder_module="transformer",
        attention_type="RelPosMHAXL",
        normalize_before=True,
        kernel_size=31,
        bias=True,
        max_length=2500,
        causal=False,
        mamba_config=None,
        gradient_checkpointing=False,
        fidelity="corrected",
        conformer_activation=Swish,
    ):
        _check_choice("encoder_module", encoder_module, ENCODERS)
        _check_choice("decoder_module", decoder_module, DECODERS)
        _check_choice("attention_type", attention_type, ATTENTIONS)
        check_fidelity(fidelity)
        for name, layers in (
            ("num_encoder_layers", num_encoder_layers),
            ("num_decoder_layers", num_decoder_layers),
        ):
            if layers < 1:
                raise ValueError(f"{name} must be at least 1; got {layers}")
        super().__init__(
            tgt_vocab=tgt_vocab,
            input_size=input_size,
            d_model=d_model,
            nhead=nhead,
            # the encoder is attached below, a Mamba decoder in place of one layer that brings the embedding
            num_encoder_layers=0,
            num_decoder_layers=1 if decoder_module == "mamba" else num_decoder_layers,
            d_ffn=d_ffn,
            dropout=dropout,
            activation=activation,
            normalize_before=normalize_before,
            attention_type=attention_type,
            max_length=max_length,
            causal=causal,
        )
        self.fidelity, self.max_length = fidelity, max_length
        shared = {
            "num_layers": num_encoder_layers,
            "d_model": d_model,
            "d_ffn": d_ffn,
            "kernel_size": kernel_size,
            "activation": activation if encoder_module == "conmamba" else conformer_activation,
            "bias": bias,
            "dropout": dropout,
            "causal": causal,
            "fidelity": fidelity,
            "gradient_checkpointing": gradient_checkpointing,
        }
        if encoder_module == "conmamba":
            self.encoder = ConmambaEncoder(mamba_config=mamba_config, **shared)
        else:
            self.encoder = ConformerEncoder(nhead=nhead, attention_type=attention_type, **shared)
        if decoder_module == "mamba":
            self.decoder = MambaDecoder(
                num_decoder_layers,
                d_model,
                d_ffn,
                activation,
                dropout,
                normalize_before,
                mamba_config,
                fidelity,
            )
        initialise_transformer_(self, fidelity)

    @property
    def has_stateful_decoder(self):
        """Whether :meth:`start_decoding` and :meth:`decode_step` can be used: a Mamba decoder's."""
        return isinstance(self.decoder, MambaDecoder)

    @property
    def _token_positions(self):
        """The table of absolute positions that tokens are given."""
        if self.attention_type == "regularMHA":
            return self.positional_encoding
        return self.positional_encoding_decoder

    def forward(self, src, tgt, wav_len=None, pad_idx=0, *, frames=None, hidden_after=None):
        """Encode utterances and decode their tokens, each token given those before it.

        Arguments
        ---------
        src, wav_len, frames, hidden_after
            As for :meth:`encode`.
        tgt : torch.Tensor
            (batch, tokens) indices, the start token first.
        pad_idx : int
            What ``tgt`` is padded with.

        Returns
        -------
        (torch.Tensor, torch.Tensor) or (torch.Tensor, torch.Tensor, torch.Tensor)
            (batch, time, d_model) of the encoder; with ``hidden_after`` the same of that layer; (batch, tokens,
            d_model) of the decoder.

        Raises
        ------
        ValueError
            If a sequence is longer than the table of positions.
        """
        lengths = _frame_counts(src, wav_len, frames)
        encoded = self.encode(src, frames=lengths, hidden_after=hidden_after)
        memory = encoded if hidden_after is None else encoded[0]
        padding = get_key_padding_mask(tgt, pad_idx)
        decoded, _ = self._decode(tgt, memory, lengths, padding)
        return (memory, decoded) if hidden_after is None else (*encoded, decoded)

    def encode(
        self,
        src,
        wav_len=None,
        pad_idx=0,
        dynchunktrain_config=None,
        *,
        frames=None,
        hidden_after=None,
    ):
        """Encode utterances.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, input_size), or (batch, time, frequencies, channels) of a front-end.
        wav_len : torch.Tensor, optional
            (batch,) relative lengths, rounded to frames as SpeechBrain does.
        pad_idx : int
            Taken because SpeechBrain's callers pass it.
        dynchunktrain_config : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            Chunks that hide the future.
        frames : torch.Tensor, optional
            (batch,) integer frame counts, instead of ``wav_len`` and exact.
        hidden_after : int, optional
            Also return the normalised output of this layer, counted from 1.

        Returns
        -------
        torch.Tensor or (torch.Tensor, torch.Tensor)
            (batch, time, d_model).

        Raises
        ------
        ValueError
            If absolute positions are added (``regularMHA``) and the utterance is longer than their table.
        """
        lengths = _frame_counts(src, wav_len, frames)
        src = self._project(src)
        positions = src_mask = None
        if isinstance(self.encoder, ConformerEncoder):
            if self.attention_type == "RelPosMHAXL":
                positions = self.positional_encoding(src)
            src_mask = make_transformer_src_mask(src, self.causal, dynchunktrain_config)
        encoded, hidden = self.encoder(
            src,
            src_mask=src_mask,
            pos_embs=positions,
            dynchunktrain_config=dynchunktrain_config,
            lengths=lengths,
            hidden_after=hidden_after,
        )
        return encoded if hidden_after is None else (encoded, hidden)

    def _project(self, src, first=0):
        """What the encoder takes, for frames from number ``first`` on."""
        src = self.custom_src_module(src.flatten(2))
        if self.attention_type != "regularMHA":
            return src
        return src + self._positions(self.positional_encoding, first, src.shape[1], "frames")

    def _positions(self, table, first, count, what):
        """Rows ``first`` to ``first + count`` of a table of positions, (1, count, d_model)."""
        rows = table.pe.shape[1]
        if first + count > rows:
            remedy = (
                "cut the utterance into shorter ones, or choose attention_type RelPosMHAXL or RoPEMHA"
                if what == "frames"
                else "cut the utterance into shorter ones, or lower max_decode_ratio"
            )
            raise ValueError(
                f"{first + count} {what} do not fit the table of positions, max_length: {rows}; raise max_length "
                f"(the table holds nothing learned: a trained model takes a longer one), {remedy}"
            )
        return table.pe[:, first : first + count]

    def _embed(self, tokens, first=0):
        """Scaled embeddings with positions from ``first`` on, (batch, tokens, d_model)."""
        positions = self._positions(self._token_positions, first, tokens.shape[1], "tokens")
        return self.custom_tgt_module(tokens) + positions

    def _decode(self, tgt, memory, lengths, padding=None):
        valid = valid_frames(lengths, memory.shape[1], memory.device)
        options = {} if not self.has_stateful_decoder else {"memory_lengths": lengths}
        decoded, _, attentions = self.decoder(
            self._embed(tgt),
            memory,
            # true where SpeechBrain's is -inf: PyTorch wants both masks of one kind
            tgt_mask=get_lookahead_mask(tgt).bool(),
            tgt_key_padding_mask=padding,
            memory_key_padding_mask=None if valid is None else ~valid,
            **options,
        )
        return decoded, attentions[-1]

    @torch.no_grad()
    def decode(self, tgt, encoder_out, enc_len=None):
        """Decode whole prefixes.

        Arguments
        ---------
        tgt : torch.Tensor
            (batch, tokens) indices; none is taken for padding.
        encoder_out : torch.Tensor
            (batch, time, d_model).
        enc_len : torch.Tensor, optional
            (batch,) integer frame counts.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            (batch, tokens, d_model), and the last layer's attention over the memory (``None`` of Mamba).

        Raises
        ------
        ValueError
            If the prefix is longer than the table of positions.
        """
        return self._decode(tgt, encoder_out, enc_len)

    @torch.no_grad()
    def start_decoding(self, encoder_out, enc_len=None):
        """The state before the first token; the memory is read here and never again.

        Arguments
        ---------
        encoder_out : torch.Tensor
            (batch, time, d_model).
        enc_len : torch.Tensor, optional
            (batch,) integer frame counts.

        Returns
        -------
        DecodingState
            :func:`modules.mamba_decoder.reorder_state` selects and repeats hypotheses.

        Raises
        ------
        ValueError
            If the decoder is a Transformer, which carries no state.
        """
        if not self.has_stateful_decoder:
            raise ValueError(
                "only a Mamba decoder carries a state: decode whole prefixes with decode, or build the model with "
                "decoder_module: mamba"
            )
        return DecodingState(0, self.decoder.prefill(encoder_out, enc_len))

    @torch.no_grad()
    def decode_step(self, tokens, state):
        """Decode one more token of each hypothesis, at the same cost whatever came before.

        Arguments
        ---------
        tokens : torch.Tensor
            (batch,) indices.
        state : DecodingState

        Returns
        -------
        (torch.Tensor, DecodingState)
            (batch, d_model), and the state after the token; the one given is left as it was.

        Raises
        ------
        ValueError
            If there were more tokens than the table of positions has rows.
        """
        embedded = self._embed(tokens.unsqueeze(1), state.position).squeeze(1)
        prediction, decoder = self.decoder.step(embedded, state.decoder)
        return prediction, DecodingState(state.position + 1, decoder)

    def make_streaming_context(self, dynchunktrain_config, encoder_kwargs=None):
        """A context for :meth:`encode_streaming`, before the first chunk.

        Raises
        ------
        ValueError
            If the encoder is a ConMamba that sees the future.
        """
        if isinstance(self.encoder, ConformerEncoder):
            return super().make_streaming_context(dynchunktrain_config, encoder_kwargs or {})
        if not self.causal:
            raise ValueError(
                "a bidirectional ConMamba encoder reads whole utterances and can not stream: build it with causal: True"
            )
        return TransformerASRStreamingContext(dynchunktrain_config, ConmambaStreamingContext())

    def encode_streaming(self, src, context):
        """Encode the next chunk of each utterance.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, input_size).
        context : speechbrain.lobes.models.transformer.TransformerASR.TransformerASRStreamingContext
            From :meth:`make_streaming_context`; moved on to the chunk's end.

        Returns
        -------
        torch.Tensor
            (batch, time, d_model); of ConMamba the frames that the whole utterance would give.
        """
        if isinstance(self.encoder, ConformerEncoder):
            return super().encode_streaming(src, context)
        past = context.encoder_context
        encoded, past.state = self.encoder.forward_chunk(
            self._project(src, past.frames), past.state
        )
        past.frames += src.shape[1]
        return encoded

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # the table of sines is the same at any length: a checkpoint's own may be longer or shorter
        for name in ("positional_encoding", "positional_encoding_decoder"):
            key, own = f"{prefix}{name}.pe", getattr(getattr(self, name, None), "pe", None)
            if own is not None and key in state_dict and state_dict[key].shape != own.shape:
                state_dict[key] = own
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class S2SOutput(NamedTuple):
    """What :class:`S2SRecognizer` gives: log-probabilities (batch, time, units) and (batch, tokens, units), the
    counts of subsampled frames (batch,), the encoder's output (batch, time, d_model), and in training with an
    intermediate layer its log-probabilities (batch, time, units).
    """

    ctc_log_probs: torch.Tensor
    seq_log_probs: torch.Tensor
    frames: torch.Tensor
    encoded: torch.Tensor
    intermediate: torch.Tensor | None


class S2SRecognizer(Recognizer):
    """From normalised features and tokens to log-probabilities of the next tokens, and of units a frame.

    The sub-modules keep the names of the published recipes' modules.

    Arguments
    ---------
    CNN : modules.frontend.ConvolutionSubsampling
    Transformer : S2STransformer
    seq_lin, ctc_lin : torch.nn.Module
        From ``d_model`` to the number of units: of the decoder, and of the encoder (blank included).
    intermediate_layer : int
        See :class:`modules.ctc.CTCRecognizer`.

    Raises
    ------
    ValueError
        If the encoder has no such intermediate layer.
    """

    def __init__(self, CNN, Transformer, seq_lin, ctc_lin, intermediate_layer=0):
        super().__init__(CNN, Transformer, ctc_lin, intermediate_layer)
        self.seq_lin = seq_lin

    def forward(self, features, frames, tokens_bos, wav_lens=None):
        """Log-probabilities, each token given those before it.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, n_mels).
        frames : torch.Tensor
            (batch,) frame counts.
        tokens_bos : torch.Tensor
            (batch, tokens) indices, the start token first, padded with 0.
        wav_lens : torch.Tensor, optional
            (batch,) relative lengths; only ``upstream`` reads them.

        Returns
        -------
        S2SOutput

        Raises
        ------
        ValueError
            If a sequence is longer than the table of positions.
        """
        x, frames = self.subsample(features, frames, wav_lens)
        hidden_after = self.hidden_after
        encoded, *hidden, decoded = self.Transformer(
            x, tokens_bos, frames=frames, hidden_after=hidden_after
        )
        return S2SOutput(
            self.ctc_log_probs(encoded),
            torch.log_softmax(self.seq_lin(decoded).float(), dim=-1),
            frames,
            encoded,
            self.ctc_log_probs(hidden[0]) if hidden else None,
        )

    def encode(self, features, frames, wav_lens=None):
        """The encoder's output (batch, time, d_model) and its frame counts (batch,)."""
        x, frames = self.subsample(features, frames, wav_lens)
        return self.Transformer.encode(x, frames=frames), frames


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def _frame_counts(src, wav_len, frames):
    """Integer frame counts from themselves, or from relative lengths as SpeechBrain rounds them."""
    if frames is not None or wav_len is None:
        return frames
    return torch.round(wav_len * src.shape[1]).long()
