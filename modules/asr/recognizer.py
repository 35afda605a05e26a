"""The base class of the recognition networks: subsampling that counts frames, and a CTC layer on the encoder."""

from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
from torch import nn

from modules.lengths import relative_lengths
from modules.ssm.checks import check_count
from modules.ssm.precision import at_least_float32


class RecognitionNetwork(nn.Module):
    """What recognisers with a CTC output share: subsampling that counts frames, and a CTC layer on the encoder.

    The sub-modules keep the names of the published recipes' modules; checkpoints of those recipes load as they are.

    Arguments
    ---------
    CNN : modules.frontend.ConvolutionSubsampling
    Transformer : torch.nn.Module
        With an ``encoder`` of layers and a ``fidelity``.
    ctc_lin : torch.nn.Module
        Layer from ``d_model`` to the vocabulary, blank included.
    intermediate_layer : int
        In training, also give the log-probabilities read off this layer, counted from 1 (Lee and Watanabe,
        "Intermediate Loss Regularization for CTC-based Speech Recognition", arXiv 2102.03216, section 3);
        0 for none.
    chunk_size : int, optional
        Frames of the encoder in a chunk, outside training: a frame sees the future up to its chunk's end. By default
        it sees the whole utterance. A causal encoder sees no future and has no chunks.
    left_context : int, optional
        Chunks before its own that a frame of a Conformer sees, outside training; by default all. A ConMamba does not
        read it, since its states carry all of the past.

    Raises
    ------
    ValueError
        If the encoder has no such intermediate layer, or no such chunks.
    """

    # the published recipes save a list of their modules, which numbers them
    _published_list = ("CNN", "Transformer", "ctc_lin")

    def __init__(
        self,
        CNN,
        Transformer,
        ctc_lin,
        intermediate_layer=0,
        chunk_size=None,
        left_context=None,
    ):
        super().__init__()
        self.CNN, self.Transformer, self.ctc_lin = CNN, Transformer, ctc_lin
        layers = len(Transformer.encoder.layers)
        if not 0 <= intermediate_layer < layers:
            raise ValueError(
                f"intermediate_layer must be 0 (none) or under the number of encoder layers, {layers}; "
                f"got {intermediate_layer}"
            )
        self.intermediate_layer = intermediate_layer
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
            if self.fidelity == "upstream":
                raise ValueError(
                    "chunk_size needs fidelity corrected: the published system has no chunks"
                )
        if left_context is not None:
            check_count("left_context", left_context)
        self.left_context = left_context
        self.chunk_size = None if getattr(Transformer, "causal", False) else chunk_size

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for number, part in enumerate(self._published_list):
            old = f"{prefix}{number}."
            for key in [key for key in state_dict if key.startswith(old)]:
                state_dict[f"{prefix}{part}.{key.removeprefix(old)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def fidelity(self):
        """``corrected`` or ``upstream``, the encoder's."""
        return self.Transformer.fidelity

    @property
    def hidden_after(self):
        """The layer to read an intermediate output off now: in training, if there is one."""
        return self.intermediate_layer if self.training and self.intermediate_layer else None

    def chunks_for(self, chunks=None):
        """The chunks that the encoder reads now, as SpeechBrain's ``DynChunkTrainConfig``; None for no chunks.

        ``chunks`` where they are given. Otherwise the network's own outside training, and none in training.
        """
        if chunks is not None or self.training or self.chunk_size is None:
            return chunks
        return DynChunkTrainConfig(self.chunk_size, self.left_context)

    def subsample(self, features, lengths, wav_lens=None):
        """What the encoder takes, (batch, subsampled time, channels), and its frame counts (batch,).

        ``upstream`` rounds the counts from the relative lengths ``wav_lens``. By default these follow from ``lengths``.
        """
        if self.fidelity == "corrected":
            return self.CNN(features, lengths)
        x, _ = self.CNN(features)
        relative = relative_lengths(lengths, features.shape[1]) if wav_lens is None else wav_lens
        return x, (relative * x.shape[1]).round().long()

    def ctc_log_probs(self, encoded):
        """Log-probabilities (batch, time, vocabulary) from the encoder's output (batch, time, d_model)."""
        return at_least_float32(self.ctc_lin(encoded)).log_softmax(dim=-1)
