"""A streaming run behind SpeechBrain's own interface, ``StreamingASR``; exported runs are built of the same parts.

SpeechBrain splits a stream between a feature extractor, an encoder and a decoder, each with a context. Here the
encoder's context is the whole one of :class:`modules.asr.streaming_network.StreamingNetwork`, since the features, the
subsampling and the layers all wait for samples. The extractor hands samples on.
"""

from dataclasses import dataclass, field

import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.ASR import StreamingASR
from speechbrain.tokenizers.SentencePiece import SentencePieceDecoderStreamingContext
from speechbrain.utils.filter_analysis import FilterProperties
from torch import nn

from mamba_speech.asr.streaming import StreamingRecognizer, greedy_tokens
from modules.asr.streaming_network import StreamingContext, StreamingNetwork
from modules.lengths import sample_counts
from modules.ssm.checks import check_count
from modules.ssm.masking import keep_valid, valid_frames

# SpeechBrain ends a stream by so many pieces of zeros; its pieces are a little shorter than a chunk
_FINAL_PIECES = 2


def speechbrain_streaming(run, device=None):
    """SpeechBrain's ``StreamingASR`` for a run of a streaming recipe; texts come from CTC's best path.

    Call ``transcribe_chunk`` with pieces of a stream, or ``transcribe_file(path, config,
    use_torchaudio_streaming=False)``. The ``chunk_size`` of SpeechBrain's ``DynChunkTrainConfig`` is the chunk of the
    encoder. Its ``left_context_size`` is not read, since the states carry all of the past. SpeechBrain has no end of a
    stream: it sends zeros, which the network hears.

    Arguments
    ---------
    run : str or Path
        Output folder of a streaming recipe.
    device : str or torch.device, optional
        A CUDA device if there is one, else the CPU.

    Returns
    -------
    speechbrain.inference.ASR.StreamingASR

    Raises
    ------
    FileNotFoundError, RuntimeError, ValueError
        See :meth:`mamba_speech.asr.streaming.StreamingRecognizer.load`.

    Example
    -------
    Not run here, since it needs a trained run::

        asr = speechbrain_streaming("results/CTC/conmamba_streaming_mini/1")
        print(asr.transcribe_file("x.wav", DynChunkTrainConfig(8), use_torchaudio_streaming=False))
    """
    recognizer = StreamingRecognizer.load(run, device)
    network = recognizer.network
    hparams = {
        "fea_streaming_extractor": Samples(network.frame_samples),
        "make_decoder_streaming_context": DecoderContext,
        "decoding_function": GreedyDecoder(network.model, recognizer.tokenizer),
        "make_tokenizer_streaming_context": SentencePieceDecoderStreamingContext,
        "tokenizer_decode_streaming": decode_more,
        "tokenizer": recognizer.tokenizer,
        "sample_rate": recognizer.sample_rate,
        "audio_normalizer": AudioNormalizer(sample_rate=recognizer.sample_rate),
    }
    encoder = Encoder(network.compute_features, network.normalize, network.model)
    modules = {"enc": encoder, "proj_enc": nn.Identity()}
    device = next(network.model.parameters()).device
    return StreamingASR(modules, hparams, run_opts={"device": str(device)})


class Samples:
    """SpeechBrain's streaming feature extractor, of samples: those behind a piece's length are silence.

    Arguments
    ---------
    frame_samples : int
        Samples that a frame of the encoder stands for.
    """

    def __init__(self, frame_samples):
        # of the whole front-end
        self.properties = FilterProperties(window_size=frame_samples, stride=frame_samples)

    def make_streaming_context(self):
        """None: the encoder's context holds the samples too."""

    def get_recommended_final_chunk_count(self, frames_per_chunk):
        """Pieces of zeros that bring out the last chunk."""
        return _FINAL_PIECES

    def __call__(self, piece, context, lengths):
        """Samples (batch, samples) with zeros behind relative ``lengths``."""
        counts = sample_counts(lengths, piece.shape[1])
        return keep_valid(piece, valid_frames(counts, piece.shape[1], piece.device))


@dataclass
class _EncoderContext:
    """The chunk of a stream, and its context once a piece has told how many streams there are."""

    chunk_size: int
    streams: StreamingContext | None = None


class Encoder(nn.Module):
    """From samples to the encoder's output.

    Arguments
    ---------
    compute_features, normalize, model
        See :class:`modules.asr.streaming_network.StreamingNetwork`, which is made when the first stream begins.
    """

    def __init__(self, compute_features, normalize, model):
        super().__init__()
        # the networks as modules, so that SpeechBrain finds their parameters
        self.parts = nn.ModuleList([compute_features, normalize, model])
        self._network = None

    @property
    def network(self):
        """The streaming network; SpeechBrain has loaded the weights when it is first asked for."""
        if self._network is None:
            self._network = StreamingNetwork(*self.parts)
        return self._network

    def make_streaming_context(self, dynchunktrain_config):
        """The context of a stream over chunks."""
        check_count("chunk_size", dynchunktrain_config.chunk_size)
        return _EncoderContext(dynchunktrain_config.chunk_size)

    def forward_streaming(self, samples, context):
        """The encoder's output (batch, new frames, d_model)."""
        if context.streams is None:
            size = None if self.network.causal else context.chunk_size
            context.streams = self.network.make_streaming_context(len(samples), size)
        return self.network.forward_streaming(samples, context.streams).encoded


def decode_more(tokenizer, tokens, context):
    """The text of new tokens, with the space that a text of its own would not begin with.

    SpeechBrain's own function asks sentencepiece for a kind of answer that its newer versions no longer give.
    """
    if not tokens:
        return ""
    begins_word = tokenizer.labels()[tokens[0]].startswith("\u2581")
    space = " " if begins_word and context.emitted_symbol_count else ""
    context.emitted_symbol_count += len(tokens)
    return space + tokenizer.decode(tokens)


@dataclass
class DecoderContext:
    """The best index of each stream's last frame."""

    last: list = field(default_factory=list)


class GreedyDecoder:
    """New tokens of each stream by CTC's best path.

    Arguments
    ---------
    model : modules.asr.recognizer.RecognitionNetwork
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
        SpeechBrain may load it after the decoder is made.
    """

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.blank, self.silent = tokenizer.blank, {tokenizer.blank, *tokenizer.control}

    @torch.no_grad()
    def __call__(self, encoded, context):
        log_probs = self.model.ctc_log_probs(encoded)[..., : len(self.tokenizer)]
        last = context.last or [self.blank] * len(encoded)
        tokens, context.last = greedy_tokens(log_probs, last, self.silent)
        return tokens
