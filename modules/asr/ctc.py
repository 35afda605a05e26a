"""Encoder-only recognisers trained with connectionist temporal classification (CTC).

A recogniser is one network, so that one DistributedDataParallel wraps it: convolutional subsampling, an
encoder (ConMamba, or Conformer as the baseline) and a linear output layer. Counts of frames go in
and come out beside the tensors.
"""

from typing import NamedTuple

import torch
from speechbrain.lobes.models.transformer.Transformer import PositionalEncoding
from speechbrain.lobes.models.transformer.TransformerASR import (
    TransformerASR,
    make_transformer_src_mask,
)
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.attention import RelPosEncXL
from speechbrain.nnet.containers import ModuleList
from speechbrain.nnet.linear import Linear
from torch import nn

from modules.asr.recognizer import RecognitionNetwork
from modules.asr.streaming import StreamingEncoding
from modules.conformer import ConformerEncoder
from modules.conmamba import ConmambaEncoder
from modules.fidelity import check_fidelity, initialise_transformer_


class ConmambaCTCEncoder(StreamingEncoding, nn.Module):
    """The published recogniser's transformer without its decoder: an input projection and ConMamba layers.

    Arguments
    ---------
    input_size : int
        Features a frame after subsampling.
    d_model, d_ffn, num_encoder_layers, kernel_size, dropout, activation, bias, causal, mamba_config
        Of the encoder, see :class:`modules.conmamba.ConmambaEncoder`.
    max_length : int
        Rows of the positional table that published checkpoints carry (and nobody reads).
    fidelity : str
        ``corrected`` or ``upstream``.

    Example
    -------
    >>> import torch
    >>> encoder = ConmambaCTCEncoder(input_size=40, d_model=16, d_ffn=32, num_encoder_layers=2)
    >>> encoder.encode(torch.randn(2, 10, 40), torch.tensor([10, 6]))[0].shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        input_size,
        d_model=512,
        d_ffn=2048,
        num_encoder_layers=6,
        kernel_size=31,
        dropout=0.1,
        activation=Swish,
        bias=True,
        causal=False,
        mamba_config=None,
        max_length=2500,
        fidelity="corrected",
    ):
        super().__init__()
        self.fidelity, self.causal = check_fidelity(fidelity), causal
        # no parameters: they stand in the state dict of every published checkpoint
        self.positional_encoding = RelPosEncXL(d_model)
        self.positional_encoding_decoder = PositionalEncoding(d_model, max_length)
        self.encoder = ConmambaEncoder(
            num_encoder_layers,
            d_model,
            d_ffn,
            kernel_size,
            activation,
            bias,
            dropout,
            causal,
            mamba_config,
            fidelity,
        )
        self.custom_src_module = ModuleList(
            Linear(input_size=input_size, n_neurons=d_model, bias=True, combine_dims=False),
            nn.Dropout(dropout),
        )
        initialise_transformer_(self, fidelity)

    def encode(self, src, lengths=None, wav_lens=None, hidden_after=None, chunks=None):
        """Encode (batch, time, input_size) to (batch, time, d_model), and the output of layer ``hidden_after``.

        With ``chunks`` (SpeechBrain's ``DynChunkTrainConfig``) a frame sees the future up to its chunk's end.
        """
        return self.encoder(
            self._project(src),
            lengths=lengths,
            hidden_after=hidden_after,
            dynchunktrain_config=chunks,
        )

    def _project(self, src, first=0):
        """What the encoder takes, (batch, time, d_model); frames have no positions, whatever their number."""
        return self.custom_src_module(src)


class ConformerCTCEncoder(TransformerASR):
    """The Conformer baseline: SpeechBrain's, with its convolution modules blind to padding when ``corrected``.

    Arguments
    ---------
    input_size, d_model, nhead, d_ffn, num_encoder_layers, kernel_size, dropout, activation, bias,
    attention_type, max_length
        Of :class:`speechbrain.lobes.models.transformer.TransformerASR.TransformerASR`.
    fidelity : str
        ``corrected`` or ``upstream``.

    Example
    -------
    >>> import torch
    >>> encoder = ConformerCTCEncoder(input_size=40, d_model=16, nhead=2, d_ffn=32, num_encoder_layers=2)
    >>> encoder.encode(torch.randn(2, 10, 40), torch.tensor([10, 6]))[0].shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        input_size,
        d_model=512,
        nhead=8,
        d_ffn=2048,
        num_encoder_layers=6,
        kernel_size=31,
        dropout=0.1,
        activation=Swish,
        bias=True,
        attention_type="RelPosMHAXL",
        max_length=2500,
        fidelity="corrected",
    ):
        super().__init__(
            tgt_vocab=0,
            input_size=input_size,
            d_model=d_model,
            nhead=nhead,
            # one layer, because SpeechBrain refuses none; the encoder below takes its place
            num_encoder_layers=1,
            num_decoder_layers=0,
            d_ffn=d_ffn,
            dropout=dropout,
            attention_type=attention_type,
            max_length=max_length,
            causal=False,
        )
        self.fidelity = check_fidelity(fidelity)
        self.encoder = ConformerEncoder(
            num_encoder_layers,
            d_model,
            d_ffn,
            nhead,
            kernel_size,
            activation,
            bias,
            dropout,
            attention_type=attention_type,
            fidelity=fidelity,
        )
        initialise_transformer_(self, fidelity)

    def encode(self, src, lengths=None, wav_lens=None, hidden_after=None, chunks=None):
        """Encode (batch, time, input_size) to (batch, time, d_model), and the output of layer ``hidden_after``.

        ``upstream`` takes the relative lengths ``wav_lens`` and rounds them, as the published recipe does. With
        ``chunks`` (SpeechBrain's ``DynChunkTrainConfig``) a frame sees the future up to its chunk's end.
        """
        if wav_lens is not None and (self.fidelity == "upstream" or lengths is None):
            lengths = torch.round(wav_lens * src.shape[1]).long()
        positions = None
        src = self.custom_src_module(src)
        if self.attention_type == "RelPosMHAXL":
            positions = self.positional_encoding(src)
        elif self.attention_type == "regularMHA":
            src = src + self.positional_encoding(src)
        return self.encoder(
            src,
            src_mask=make_transformer_src_mask(src, False, chunks),
            pos_embs=positions,
            lengths=lengths,
            hidden_after=hidden_after,
            dynchunktrain_config=chunks,
        )


class CTCOutput(NamedTuple):
    """The output of :class:`CTCRecognizer`, without ``None``, which no tracer takes.

    Log-probabilities (batch, time, vocabulary), and the counts of subsampled frames (batch,).
    """

    log_probs: torch.Tensor
    lengths: torch.Tensor

    @property
    def intermediate(self):
        """None: there is no intermediate layer's output outside training."""
        return None


class CTCTrainingOutput(NamedTuple):
    """A :class:`CTCOutput` with the log-probabilities (batch, time, vocabulary) of an intermediate layer."""

    log_probs: torch.Tensor
    lengths: torch.Tensor
    intermediate: torch.Tensor


class CTCRecognizer(RecognitionNetwork):
    """From normalised features to log-probabilities of each frame's token, with frame counts.

    Arguments
    ---------
    CNN, Transformer, ctc_lin, intermediate_layer, chunk_size
        See :class:`modules.asr.recognizer.RecognitionNetwork`. The transformer is a :class:`ConmambaCTCEncoder` or a
        :class:`ConformerCTCEncoder`.

    Raises
    ------
    ValueError
        If the encoder has no such intermediate layer, or no such chunks.
    """

    def forward(self, features, lengths, wav_lens=None, chunks=None):
        """Log-probabilities for every frame.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, n_mels).
        lengths : torch.Tensor
            (batch,) frame counts.
        wav_lens : torch.Tensor, optional
            (batch,) relative lengths; only ``upstream`` reads them.
        chunks : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            See :meth:`modules.asr.recognizer.RecognitionNetwork.chunks_for`.

        Returns
        -------
        CTCOutput
            Or, in training with an intermediate layer, :class:`CTCTrainingOutput`.
        """
        x, lengths = self.subsample(features, lengths, wav_lens)
        chunks = self.chunks_for(chunks)
        encoded, hidden = self.Transformer.encode(
            x, lengths, hidden_after=self.hidden_after, chunks=chunks
        )
        log_probs = self.ctc_log_probs(encoded)
        if hidden is None:
            return CTCOutput(log_probs, lengths)
        return CTCTrainingOutput(log_probs, lengths, self.ctc_log_probs(hidden))
