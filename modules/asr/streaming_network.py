"""A recogniser along a stream: pieces of a waveform in, what the network says of each frame out.

Everything that later frames need stands in a :class:`StreamingContext`, whose size does not grow: the last samples, the
last features, frames that wait for the end of their chunk, and the states of the encoder's layers.
"""

import hashlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASRStreamingContext
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from modules.causal_frontend import BlockState, CausalFilterbankFeatures, stream_subsampling
from modules.conmamba import ConmambaEncoder
from modules.ssm.checks import check_count
from modules.ssm.precision import at_least_float32

# changes with what a context holds, so that one of an earlier version is refused
_FORMAT = 1
# frames of the encoder that are computed at once, however long a piece is
_FRAMES = 1000
# of the samples: full scale of 32-bit integers, whose energies float32 still holds
_LARGEST = 2.0**31
# held while a context is taken
_CONTEXTS = threading.Lock()


class StreamingOutput(NamedTuple):
    """What the network says of the frames that a piece has completed.

    CTC's log-probabilities (batch, new frames, vocabulary), and the encoder's output (batch, new frames, d_model).
    A decoder reads the latter.
    """

    log_probs: torch.Tensor
    encoded: torch.Tensor


@dataclass
class StreamingContext:
    """What streams carry from piece to piece; it may be pickled, and go on in another process.

    Attributes
    ----------
    model : str
        Fingerprint of the network that the context belongs to.
    chunk_size : int or None
        Frames of a chunk; None of a causal encoder.
    batch : int
        Streams, which run in step.
    samples, frames : int
        Samples read, and frames of the encoder given, of each stream.
    waveform : torch.Tensor
        (batch, samples) that the next features still read.
    subsampling : list of BlockState
        The last inputs of the subsampling's blocks.
    waiting : torch.Tensor or None
        (batch, frames, channels), subsampled frames whose chunk has not ended.
    encoder : speechbrain.lobes.models.transformer.TransformerASR.TransformerASRStreamingContext
        States of the encoder's layers.
    ended : bool
        Whether :meth:`StreamingNetwork.finish` has ended the streams.
    busy : bool
        Whether a call is at work on the context now.
    """

    model: str
    chunk_size: int | None
    batch: int
    samples: int
    frames: int
    waveform: torch.Tensor
    subsampling: list[BlockState] | None
    waiting: torch.Tensor | None
    encoder: TransformerASRStreamingContext
    ended: bool = False
    busy: bool = False

    def __getstate__(self):
        """What is pickled and copied: a copy is nobody's at work."""
        return vars(self) | {"busy": False}

    def layer_bytes(self):
        """Bytes that each layer of a ConMamba encoder carries, all streams together; empty before the first frame."""
        return [_bytes_of(layer) for layer in self.encoder.encoder_context.state or []]

    def total_bytes(self):
        """Bytes of everything that the context carries, all streams together."""
        layers = sum(self.layer_bytes())
        return layers + sum(map(_bytes_of, (self.waveform, self.subsampling, self.waiting)))


class StreamingNetwork:
    """A recogniser that reads streams piece by piece, with the results of the whole utterance.

    Arguments
    ---------
    compute_features : modules.causal_frontend.CausalFilterbankFeatures
    normalize : torch.nn.Module
        Normalisation by saved statistics, such as :class:`modules.asr.normalization.GlobalNormalization`.
    model : modules.asr.recognizer.RecognitionNetwork
        With a ConMamba encoder. The three are used as they are, in evaluation mode: neither copied nor moved.
    chunk_size : int, optional
        Frames of a chunk of an encoder that is not causal; by default the model's own.

    Attributes
    ----------
    causal : bool
        Whether the encoder reads nothing ahead.
    chunk_size : int or None
        Frames of a chunk; None of a causal encoder, and where each context is given its own.
    frame_samples : int
        Samples of a frame of the encoder.

    Raises
    ------
    ValueError
        If a part cannot stream or is in training mode, or the chunks have no frame.

    Example
    -------
    Not run here, since it needs a trained run; see :class:`mamba_speech.asr.streaming.StreamingRecognizer`::

        network = StreamingNetwork(run["compute_features"], run["normalize"], run["model"], chunk_size=8)
        context = network.make_streaming_context()
        for piece in pieces:  # (1, samples) each
            log_probs, encoded = network.forward_streaming(piece, context)
        log_probs, encoded = network.finish(context)
    """

    def __init__(self, compute_features, normalize, model, chunk_size=None):
        self.compute_features, self.normalize, self.model = compute_features, normalize, model
        if not isinstance(compute_features, CausalFilterbankFeatures):
            raise ValueError(  # noqa: TRY004 - a run's parts are values to its user
                f"{type(compute_features).__name__} clips by the whole utterance's maximum and cannot run along a "
                "stream: train with a streaming YAML, whose features are CausalFilterbankFeatures"
            )
        if not isinstance(model.Transformer.encoder, ConmambaEncoder):
            raise ValueError(  # noqa: TRY004
                "only a ConMamba encoder carries its past in a state of fixed size; this one is a "
                f"{type(model.Transformer.encoder).__name__}"
            )
        if normalize.training or model.training:
            raise ValueError(
                "a stream is read in evaluation mode: call eval() on the model and on normalize first"
            )
        self.causal, self.chunk_size = model.Transformer.causal, model.chunk_size
        if chunk_size is not None:
            self.chunk_size = self._checked(chunk_size)
        self.frame_samples = compute_features.hop * 2 ** len(model.CNN.strides)
        self._fingerprint = _fingerprint(compute_features, normalize, model)

    def _checked(self, chunk_size):
        """A size of chunks, by default the network's own; None of a causal encoder."""
        if self.causal:
            if chunk_size is not None:
                raise ValueError("a causal encoder reads nothing ahead: it has no chunk_size")
            return None
        chunk_size = self.chunk_size if chunk_size is None else chunk_size
        if chunk_size is None:
            raise ValueError(
                "the encoder reads the whole utterance: give a chunk_size, or train with causal: True"
            )
        check_count("chunk_size", chunk_size)
        return chunk_size

    @property
    def latency(self):
        """Samples that a result waits for at most: a chunk, or a frame of a causal encoder.

        Nothing behind them is read. The time that computing takes comes on top.
        """
        return self.frame_samples * (self._checked(None) or 1)

    def make_streaming_context(self, batch=1, chunk_size=None):
        """The context before the first sample.

        Arguments
        ---------
        batch : int
            Streams, which run in step.
        chunk_size : int, optional
            Frames of a chunk in these streams; by default the network's.

        Returns
        -------
        StreamingContext

        Raises
        ------
        ValueError
            If there is no stream, or no frame in a chunk; if a causal encoder is given chunks, or another one none.
        """
        check_count("batch", batch)
        chunk_size = self._checked(chunk_size)
        chunks = None if chunk_size is None else DynChunkTrainConfig(chunk_size)
        weight = at_least_float32(next(self.model.ctc_lin.parameters()))
        return StreamingContext(
            model=self._fingerprint,
            chunk_size=chunk_size,
            batch=batch,
            samples=0,
            frames=0,
            waveform=self.compute_features.initial_state(batch).to(weight),
            subsampling=None,
            waiting=None,
            encoder=self.model.Transformer.make_streaming_context(chunks),
        )

    @torch.no_grad()
    def forward_streaming(self, wavs, context):
        """Read the next samples of each stream.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples), finite, floating, in -1..1; any number of samples, also none. Of a long piece only the
            output takes memory.
        context : StreamingContext
            From :meth:`make_streaming_context`; moved on to the end of the piece. An error leaves it as it was.

        Returns
        -------
        StreamingOutput
            Of the frames that are complete now, perhaps none. They go on where the last call's ended.

        Raises
        ------
        ValueError
            If the piece is not (batch, samples) of finite floating numbers, or the context is another model's, has
            ended, or is in use by another thread; if the model makes of the piece values that are not finite.
        """
        with self._use(context) as moved:
            parts = [
                self._forward(part, moved)
                for part in self._checked_piece(wavs, context).split(
                    _FRAMES * self.frame_samples, 1
                )
            ]
            return StreamingOutput(*(torch.cat(outputs, 1) for outputs in zip(*parts, strict=True)))

    def _checked_piece(self, wavs, context):
        """A piece as the context's type, or an error that says what is wrong with it."""
        if wavs.dim() != 2 or wavs.shape[0] != context.batch:
            raise ValueError(
                f"a piece must be (batch, samples), one channel a stream, with the context's batch of {context.batch}; "
                f"got {tuple(wavs.shape)}"
            )
        if not wavs.is_floating_point():
            dtype = str(wavs.dtype).removeprefix("torch.")
            raise ValueError(
                f"a piece must be of floating numbers in -1..1, so divide int16 by 32768; got {dtype}"
            )
        wavs = wavs.to(context.waveform)
        # a NaN is not smaller either
        if not (wavs.abs() <= _LARGEST).all():
            raise ValueError("a piece must hold finite samples in -1..1; got NaN or a huge number")
        return wavs

    def _forward(self, wavs, context):
        features, waveform = self.compute_features.forward_chunk(wavs, context.waveform)
        output = self._encode(features, waveform, context, last=False)
        context.samples += wavs.shape[1]
        return output

    @torch.no_grad()
    def finish(self, context):
        """End the streams: the frames that waited for a hop, or for the end of their chunk.

        Arguments
        ---------
        context : StreamingContext
            Of the last :meth:`forward_streaming`; it takes no more pieces then.

        Returns
        -------
        StreamingOutput

        Raises
        ------
        ValueError
            If the context is another model's, has ended, or is in use by another thread.
        """
        with self._use(context) as moved:
            features = self.compute_features.finish(moved.waveform)
            output = self._encode(features, moved.waveform[:, :0].clone(), moved, last=True)
            moved.ended = True
        return output

    def _encode(self, features, waveform, context, last):
        """The output of the frames that new features complete."""
        model = self.model
        weight = next(model.ctc_lin.parameters())
        if features.shape[1]:
            features = self.normalize(features, features.new_ones(len(features)))
        features = features.to(weight.dtype)
        x, subsampling = stream_subsampling(model.CNN, features, context.subsampling, last)
        parts = [part for part in (context.waiting, x) if part is not None]
        waiting = torch.cat(parts, 1) if parts else None
        count = 0 if waiting is None else waiting.shape[1]
        ready = count if last else count - count % (context.chunk_size or 1)
        if ready:
            encoded = model.Transformer.encode_streaming(waiting[:, :ready], context.encoder)
            # a copy, since a view would keep the whole piece
            waiting = waiting[:, ready:].clone()
        else:
            encoded = weight.new_zeros(context.batch, 0, weight.shape[-1])
        context.waveform, context.subsampling, context.waiting = waveform, subsampling, waiting
        context.frames += ready
        log_probs = model.ctc_log_probs(encoded)
        if not torch.isfinite(log_probs).all():
            raise ValueError("the model made of a piece values that are not finite")
        return StreamingOutput(log_probs, encoded)

    @contextmanager
    def _use(self, context):
        """A checked context's copy, which takes its place at the end if all went well; other calls are kept off."""
        if not isinstance(context, StreamingContext):
            raise ValueError(  # noqa: TRY004 - as every other wrong context
                f"a context must come from make_streaming_context; got {type(context).__name__}"
            )
        if context.model != self._fingerprint:
            raise ValueError(
                "the context is another model's, or of another version: make one with this model's "
                "make_streaming_context"
            )
        with _CONTEXTS:
            if context.ended:
                raise ValueError(
                    "the context's streams have ended: make another one with make_streaming_context"
                )
            if context.busy:
                raise ValueError(
                    "the context is in use by another call: each thread needs one of its own"
                )
            context.busy = True
        try:
            encoder = context.encoder
            moved = replace(encoder, encoder_context=replace(encoder.encoder_context))
            moved = replace(context, encoder=moved)
            yield moved
            vars(context).update(vars(moved))
        finally:
            context.busy = False


def _bytes_of(state):
    """Bytes of the tensors in nested tuples and lists."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    return sum(map(_bytes_of, state)) if isinstance(state, (tuple, list)) else 0


def _fingerprint(compute_features, normalize, model):
    """A text that tells networks apart, with their features and their normalisation."""
    stft = compute_features.fbank.compute_STFT
    sizes = (compute_features.hop, stft.n_fft, stft.win_length, compute_features.floor_db)
    tensors = dict(model.state_dict())
    tensors |= {name: getattr(normalize, name, None) for name in ("glob_mean", "glob_std")}
    return fingerprint(f"{_FORMAT} {sizes}", tensors)


def fingerprint(told, tensors):
    """A text that tells networks apart: the shapes of all weights, and the values of the small ones.

    Arguments
    ---------
    told : str
        Further differences.
    tensors : dict
        Weights by name, as of a ``state_dict``; whatever is no tensor is left out.

    Returns
    -------
    str

    Example
    -------
    >>> ones, twos = ({"bias": torch.full((2,), value)} for value in (1.0, 2.0))
    >>> fingerprint("", ones) == fingerprint("", dict(ones)), fingerprint("", ones) == fingerprint("", twos)
    (True, False)
    """
    digest = hashlib.sha256(told.encode())
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        if value.dim() <= 1:
            value = value.detach().cpu().reshape(-1)
            digest.update(value.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
