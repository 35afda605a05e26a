"""Live transcripts: samples of a stream in, words with times out as soon as they are final.

:class:`LiveRecognizer` joins a :class:`mamba_speech.asr.streaming.StreamingRecognizer` and a decoder of
:mod:`mamba_speech.asr.live_decoder`.
"""

import pickle
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from mamba_speech.asr.endpoint import EndpointOptions
from mamba_speech.asr.live_decoder import DecoderContext
from mamba_speech.asr.live_options import DECODINGS, LIVE_OPTIONS, live_decoder_of_run
from mamba_speech.asr.streaming import load_streaming_run
from mamba_speech.run_errors import names_run
from modules.asr.streaming_network import StreamingContext

__all__ = ["DECODINGS", "LiveContext", "LiveRecognizer"]

# of a frame of zeros, in dB of full scale
_SILENCE = -200.0
# held while a context is taken
_CONTEXTS = threading.Lock()


@dataclass
class LiveContext:
    """What a live transcript carries from piece to piece; it may be pickled, and go on in another process.

    Attributes
    ----------
    stream : modules.asr.streaming_network.StreamingContext
    decoder : mamba_speech.asr.live_decoder.DecoderContext
    samples : numpy.ndarray
        Samples of a frame that is not complete, where levels are read.
    levels : numpy.ndarray
        Levels of frames that the network has not given yet.
    busy : bool
        Whether a call is at work on the context.
    """

    stream: StreamingContext
    decoder: DecoderContext
    samples: np.ndarray
    levels: np.ndarray
    busy: bool = False

    def __getstate__(self):
        """What is pickled and copied: a copy is nobody's at work."""
        return vars(self) | {"busy": False}

    @property
    def ended(self):
        """Whether the stream has ended."""
        return self.stream.ended

    def total_bytes(self):
        """Bytes of everything that the context carries."""
        decoder = len(pickle.dumps(self.decoder))
        return self.stream.total_bytes() + decoder + self.samples.nbytes + self.levels.nbytes


class LiveRecognizer:
    """A trained streaming recogniser that writes along: :meth:`load` a run, then give it pieces of a stream.

    Arguments
    ---------
    recognizer : mamba_speech.asr.streaming.StreamingRecognizer
    decoder : mamba_speech.asr.live_decoder.LiveDecoder

    Attributes
    ----------
    sample_rate : int
        Samples a second of the pieces; they are not resampled.
    frame_seconds : float
        Time between two frames, and the resolution of words' times.
    latency : float
        Seconds that the network waits for at most; a word is final later than that.

    Example
    -------
    Not run here, since it needs a trained run::

        live = LiveRecognizer.load("results/CTC/conmamba_streaming_mini/1")
        context = live.make_context()
        for piece in pieces:  # waveforms of any lengths
            for update in live.listen(piece, context):
                print(update.final_text, "|", update.partial)
        for update in live.finish(context):
            print(update.final_text)
    """

    def __init__(self, recognizer, decoder):
        self.recognizer, self.decoder = recognizer, decoder
        self.sample_rate = recognizer.sample_rate
        self.frame_seconds = recognizer.frame_seconds
        self._frame = recognizer.network.frame_samples

    @property
    def latency(self):
        """Seconds that the network waits for at most."""
        return self.recognizer.latency

    @classmethod
    @names_run
    def load(
        cls,
        run,
        device=None,
        *,
        chunk_size=None,
        decoding=None,
        beam_size=None,
        lm=None,
        no_lm=False,
        lm_weight=None,
        final_after=2.0,
        endpoint_silence=0.8,
        max_utterance=30.0,
        endpoint_level=None,
    ):
        """The live recogniser of a run.

        Arguments
        ---------
        run : str or Path
            Output folder of a streaming recipe, such as `conmamba_streaming_mini`.
        device : str or torch.device, optional
            A CUDA device if there is one, else the CPU.
        chunk_size : int, optional
            Frames of a chunk of an encoder that is not causal; by default the run's own.
        decoding : str, optional
            `greedy`: CTC's best path; `beam`: CTC prefix beam search; `joint`: the search of an S2S run, at the end of
            each utterance. By default as the run was tested.
        beam_size : int, optional
            Hypotheses of a search; by default the run's.
        lm : str or Path, optional
            Language model of a search, see :func:`mamba_speech.asr.language_model.load_language_model`; `beam` takes a
            run of `train_LM.py`. By default the run's, if it has one: an S2S run's language model, or the n-gram
            `ngram_lm` of a CTC run.
        no_lm : bool
            Search without the run's language model.
        lm_weight : float, optional
            Weight of the language model; by default the run's, or 0.5.
        final_after : float
            See :class:`mamba_speech.asr.prefix_beam.BeamOptions`; of `beam` alone.
        endpoint_silence, max_utterance, endpoint_level
            See :class:`mamba_speech.asr.endpoint.EndpointOptions`.

        Raises
        ------
        FileNotFoundError, ValueError
            If the run cannot be loaded, see :func:`mamba_speech.run.load_run`; if its model cannot stream, or
            not over such chunks; if an option is unknown, out of its range, or not for this kind of run.
        RuntimeError
            If the device is not there.
        """
        endpoint = EndpointOptions(endpoint_silence, max_utterance, endpoint_level)
        recognizer, options = load_streaming_run(run, device, chunk_size, LIVE_OPTIONS)
        decoder = live_decoder_of_run(
            recognizer,
            options,
            run,
            endpoint,
            decoding=decoding,
            beam_size=beam_size,
            lm=lm,
            no_lm=no_lm,
            lm_weight=lm_weight,
            final_after=final_after,
        )
        return cls(recognizer, decoder)

    def make_context(self):
        """The context before the first sample.

        Returns
        -------
        LiveContext
        """
        none = np.zeros(0, np.float32)
        stream = self.recognizer.make_streaming_context()
        return LiveContext(stream, self.decoder.make_context(), none, none)

    def listen(self, samples, context):
        """Read the next samples.

        Arguments
        ---------
        samples : numpy.ndarray or torch.Tensor
            (samples,), floats in -1..1, at the rate ``sample_rate``; any number of them, also none.
        context : LiveContext
            Moved on to the end of the piece. An error leaves it as it was.

        Returns
        -------
        list of mamba_speech.asr.live_decoder.LiveUpdate
            In order; empty if nothing has changed.

        Raises
        ------
        ValueError
            If the piece has another shape or type or is not finite; if the context is another model's, has ended, or
            is in use by another thread.
        """
        with self._use(context) as moved:
            output = self.recognizer.forward_streaming(samples, moved.stream)
            levels = self._levels(samples, moved, output.log_probs.shape[1])
            return self.decoder.step(output.log_probs, output.encoded, moved.decoder, levels)

    def finish(self, context):
        """End the stream: all words become final.

        Arguments
        ---------
        context : LiveContext
            It takes no more pieces then.

        Returns
        -------
        list of mamba_speech.asr.live_decoder.LiveUpdate

        Raises
        ------
        ValueError
            If the context is another model's, has ended, or is in use by another thread.
        """
        with self._use(context) as moved:
            output = self.recognizer.finish(moved.stream)
            count = output.log_probs.shape[1]
            levels = self._levels(moved.samples[:0], moved, count, last=True)
            updates = self.decoder.step(output.log_probs, output.encoded, moved.decoder, levels)
            return updates + self.decoder.finish(moved.decoder)

    def _levels(self, samples, moved, count, last=False):
        """Levels of the next frames of the network, in dB of full scale; None where nobody reads them."""
        if self.decoder.endpoint.endpoint_level is None:
            return None
        if isinstance(samples, torch.Tensor):
            samples = samples.detach().float().cpu()
        # the network takes (1, samples) too
        samples = np.concatenate([moved.samples, np.asarray(samples, np.float32).reshape(-1)])
        whole = len(samples) // self._frame * self._frame
        power = np.square(samples[:whole].reshape(-1, self._frame)).mean(1)
        levels = 10 * np.log10(np.maximum(power, 10 ** (_SILENCE / 10)))
        levels = np.concatenate([moved.levels, levels])
        if last:
            # the frames at the end that samples do not fill
            levels = np.concatenate([levels, np.full(max(0, count - len(levels)), _SILENCE)])
        # copies, since views would keep the whole piece
        moved.samples, moved.levels = samples[whole:].copy(), levels[count:].copy()
        return levels[:count]

    @contextmanager
    def _use(self, context):
        """A context's copy, which takes its place at the end if all went well; other calls are kept off."""
        if not isinstance(context, LiveContext):
            raise ValueError(  # noqa: TRY004 - as every other wrong context
                f"a context must come from make_context; got {type(context).__name__}"
            )
        with _CONTEXTS:
            if context.busy:
                raise ValueError(
                    "the context is in use by another call: each thread needs one of its own"
                )
            context.busy = True
        try:
            moved = replace(
                context, stream=replace(context.stream), decoder=replace(context.decoder)
            )
            yield moved
            vars(context).update(vars(moved))
        finally:
            context.busy = False
