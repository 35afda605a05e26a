"""The sequence-to-sequence recogniser: subsampling, a transformer, and an output layer each for CTC and for tokens.

It is one network, so that one DistributedDataParallel wraps it. Source: Jiang et al., "Speech Slytherin" (arXiv
2407.09732, section 2.3) and its published recipes, whose module names are kept.
"""

from typing import NamedTuple

import torch

from modules.asr.recognizer import RecognitionNetwork
from modules.ssm.precision import at_least_float32


class S2SOutput(NamedTuple):
    """The output of :class:`S2SRecognizer`, without ``None``, which no tracer takes.

    Log-probabilities (batch, time, vocabulary) of the encoder and (batch, tokens, vocabulary) of the decoder, the
    counts of subsampled frames (batch,), and the encoder's output (batch, time, d_model).
    """

    ctc_log_probs: torch.Tensor
    seq_log_probs: torch.Tensor
    lengths: torch.Tensor
    encoded: torch.Tensor

    @property
    def intermediate(self):
        """None: there is no intermediate layer's output outside training."""
        return None


class S2STrainingOutput(NamedTuple):
    """An :class:`S2SOutput` with the log-probabilities (batch, time, vocabulary) of an intermediate layer."""

    ctc_log_probs: torch.Tensor
    seq_log_probs: torch.Tensor
    lengths: torch.Tensor
    encoded: torch.Tensor
    intermediate: torch.Tensor


class S2SRecognizer(RecognitionNetwork):
    """From normalised features and tokens to log-probabilities of the next tokens, and of each frame's token.

    The sub-modules keep the names of the published recipes' modules.

    Arguments
    ---------
    CNN : modules.frontend.ConvolutionSubsampling
    Transformer : S2STransformer
    seq_lin, ctc_lin : torch.nn.Module
        Layers from ``d_model`` to the vocabulary: the decoder's, and the encoder's (blank included).
    intermediate_layer, chunk_size : int
        See :class:`modules.asr.recognizer.RecognitionNetwork`.

    Raises
    ------
    ValueError
        If the encoder has no such intermediate layer, or no such chunks.
    """

    _published_list = ("CNN", "Transformer", "seq_lin", "ctc_lin")

    def __init__(self, CNN, Transformer, seq_lin, ctc_lin, intermediate_layer=0, chunk_size=None):
        super().__init__(CNN, Transformer, ctc_lin, intermediate_layer, chunk_size)
        self.seq_lin = seq_lin

    def forward(self, features, lengths, tokens_bos, wav_lens=None, chunks=None):
        """Log-probabilities, each token given those before it.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, n_mels).
        lengths : torch.Tensor
            (batch,) frame counts.
        tokens_bos : torch.Tensor
            (batch, tokens) indices, the start token first, padded with 0.
        wav_lens : torch.Tensor, optional
            (batch,) relative lengths; only ``upstream`` reads them.
        chunks : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            See :meth:`modules.asr.recognizer.RecognitionNetwork.chunks_for`.

        Returns
        -------
        S2SOutput
            Or, in training with an intermediate layer, :class:`S2STrainingOutput`.

        Raises
        ------
        ValueError
            If a sequence is longer than the table of positions.
        """
        x, lengths = self.subsample(features, lengths, wav_lens)
        hidden_after = self.hidden_after
        chunks = self.chunks_for(chunks)
        encoded, *hidden, decoded = self.Transformer(
            x, tokens_bos, lengths=lengths, hidden_after=hidden_after, dynchunktrain_config=chunks
        )
        seq_log_probs = at_least_float32(self.seq_lin(decoded)).log_softmax(dim=-1)
        out = (self.ctc_log_probs(encoded), seq_log_probs, lengths, encoded)
        return S2STrainingOutput(*out, self.ctc_log_probs(hidden[0])) if hidden else S2SOutput(*out)

    def encode(self, features, lengths, wav_lens=None, chunks=None):
        """The encoder's output (batch, time, d_model) and its frame counts (batch,)."""
        x, lengths = self.subsample(features, lengths, wav_lens)
        chunks = self.chunks_for(chunks)
        return self.Transformer.encode(x, lengths=lengths, dynchunktrain_config=chunks), lengths
