"""The transformer of sequence-to-sequence recognisers: SpeechBrain's, with other parts in its places.

A ConMamba or Conformer encoder that counts frames, and a Transformer or Mamba decoder. Source: Jiang et al., "Speech
Slytherin" (arXiv 2407.09732, section 2.3) and its published recipes, whose module names are kept.
"""

from typing import NamedTuple

import torch
from speechbrain.lobes.models.transformer.Transformer import (
    get_key_padding_mask,
    get_lookahead_mask,
)
from speechbrain.lobes.models.transformer.TransformerASR import (
    TransformerASR,
    make_transformer_src_mask,
)
from speechbrain.nnet.activations import Swish
from torch import nn

from modules.asr.mamba_decoder import MambaDecoder
from modules.asr.positions import AbsolutePositions
from modules.asr.streaming import StreamingEncoding
from modules.conformer import ConformerEncoder
from modules.conmamba import ConmambaEncoder
from modules.fidelity import check_fidelity, initialise_transformer_
from modules.ssm.masking import valid_frames

ENCODERS = ("conmamba", "conformer")
DECODERS = ("transformer", "mamba")
ATTENTIONS = ("RelPosMHAXL", "RoPEMHA", "regularMHA")


class DecodingState(NamedTuple):
    """What decoding carries from token to token: how many tokens were read, and the decoder's state."""

    position: int
    decoder: list


class S2STransformer(StreamingEncoding, AbsolutePositions, TransformerASR):
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
        If ``encoder_module``, ``decoder_module``, ``attention_type`` or ``fidelity`` is unknown, a number of layers is
        below 1, or something attends and ``nhead`` does not divide ``d_model``.

    Example
    -------
    >>> import torch
    >>> net = S2STransformer(20, 40, 16, 2, 2, 1, 32, kernel_size=7, decoder_module="mamba").eval()
    >>> lengths, tokens = torch.tensor([10, 6]), torch.tensor([[1, 5, 6], [1, 7, 0]])
    >>> memory, out = net(torch.randn(2, 10, 40), tokens, lengths=lengths)
    >>> memory.shape, out.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 3, 16]))
    >>> first, state = net.decode_step(tokens[:, 0], net.start_decoding(memory, lengths))
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
        layers = {
            "num_encoder_layers": num_encoder_layers,
            "num_decoder_layers": num_decoder_layers,
        }
        for name, number in layers.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}")
        if encoder_module == "conmamba" and decoder_module == "mamba":
            nhead = 1  # nothing attends, so that any number of heads will do
        elif d_model % nhead:
            raise ValueError(f"nhead must divide d_model, {d_model}; got {nhead}")
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
        options = {
            "num_layers": num_encoder_layers,
            "d_model": d_model,
            "d_ffn": d_ffn,
            "kernel_size": kernel_size,
            "bias": bias,
            "dropout": dropout,
            "causal": causal,
            "fidelity": fidelity,
            "gradient_checkpointing": gradient_checkpointing,
        }
        if encoder_module == "conmamba":
            options |= {"activation": activation, "mamba_config": mamba_config}
            self.encoder = ConmambaEncoder(**options)
        else:
            options |= {"activation": conformer_activation, "attention_type": attention_type}
            self.encoder = ConformerEncoder(nhead=nhead, **options)
        if decoder_module == "mamba":
            sizes = (num_decoder_layers, d_model, d_ffn)
            self.decoder = MambaDecoder(
                *sizes, activation, dropout, normalize_before, mamba_config, fidelity
            )
        initialise_transformer_(self, fidelity)

    @property
    def has_stateful_decoder(self):
        """Whether :meth:`start_decoding` and :meth:`decode_step` can be used: a Mamba decoder's."""
        return isinstance(self.decoder, MambaDecoder)

    def forward(
        self,
        src,
        tgt,
        wav_len=None,
        pad_idx=0,
        *,
        lengths=None,
        hidden_after=None,
        dynchunktrain_config=None,
    ):
        """Encode utterances and decode their tokens, each token given those before it.

        Arguments
        ---------
        src, wav_len, lengths, hidden_after, dynchunktrain_config
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
        lengths = _frame_counts(src, wav_len, lengths)
        encoded = self.encode(
            src,
            dynchunktrain_config=dynchunktrain_config,
            lengths=lengths,
            hidden_after=hidden_after,
        )
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
        lengths=None,
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
            Chunks whose end hides the future: from attention, from convolutions and from Mamba's backward branch.
        lengths : torch.Tensor, optional
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
        lengths = _frame_counts(src, wav_len, lengths)
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

    def _decode(self, tgt, memory, lengths, padding=None):
        valid = valid_frames(lengths, memory.shape[1], memory.device)
        options = {"memory_lengths": lengths} if self.has_stateful_decoder else {}
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
    def start_decoding(self, encoder_out, enc_len=None, state=None):
        """The state before the first token; the memory is read here and never again.

        Along a stream, each call reads the frames that are new, and goes on from the state of the call before.

        Arguments
        ---------
        encoder_out : torch.Tensor
            (batch, time, d_model).
        enc_len : torch.Tensor, optional
            (batch,) integer frame counts.
        state : DecodingState, optional
            From an earlier call, without tokens; left as it was.

        Returns
        -------
        DecodingState
            :func:`modules.asr.mamba_decoder.reorder_state` selects and repeats hypotheses.

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
        before = None if state is None else state.decoder
        return DecodingState(0, self.decoder.prefill(encoder_out, enc_len, before))

    @torch.no_grad()
    def decode_step(self, tokens, state, parents=None, spare=None):
        """Decode one more token of each hypothesis, at the same cost whatever came before.

        Arguments
        ---------
        tokens : torch.Tensor
            (batch,) indices.
        state : DecodingState
        parents : torch.Tensor, optional
            (batch,) the hypothesis in ``state`` that each token follows; see
            :meth:`modules.asr.mamba_decoder.MambaDecoder.step`.
        spare : DecodingState, optional
            A state that nobody needs any more, whose memory may hold the new one.

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
        unused = None if spare is None else spare.decoder
        prediction, decoder = self.decoder.step(embedded, state.decoder, parents, unused)
        return prediction, DecodingState(state.position + 1, decoder)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def _frame_counts(src, wav_len, lengths):
    """Integer frame counts from themselves, or from relative lengths as SpeechBrain rounds them."""
    if lengths is not None or wav_len is None:
        return lengths
    return torch.round(wav_len * src.shape[1]).long()
