"""A trained recogniser along a stream: pieces of a waveform in, what the network says of each frame out.

SpeechBrain's own interface to streams, :class:`speechbrain.inference.ASR.StreamingASR`, is built by
:func:`mamba_speech.asr.speechbrain_streaming.speechbrain_streaming`.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from mamba_speech.asr.option_types import OPTION_TYPES
from mamba_speech.asr.run_decoder import check_tokenizer_size
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.device import choose_device
from mamba_speech.option_types import check_types
from mamba_speech.run import OPTIONS_FILE, load_run
from mamba_speech.run_errors import names_run
from modules.asr.ctc import CTCRecognizer
from modules.asr.streaming_network import StreamingNetwork

# what checkpoints are compared by, in runs of train_CTC.py and of train_S2S.py
_SELECTION_KEYS = ("WER", "token_error")


class StreamingRecognizer:
    """A trained streaming recogniser: :meth:`load` a run, then give it pieces of streams.

    Between two pieces a context carries all that later results need. It has a constant size and may be pickled. All
    pieces together give what the whole recording gives.

    Arguments
    ---------
    network : modules.asr.streaming_network.StreamingNetwork
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    sample_rate : int

    Attributes
    ----------
    sample_rate : int
        Samples a second of the pieces; they are not resampled.
    frame_seconds : float
        Time between two frames of the output.

    Example
    -------
    Not run here, since it needs a trained run::

        recognizer = StreamingRecognizer.load("results/CTC/conmamba_streaming_mini/1", chunk_size=8)
        context = recognizer.make_streaming_context()
        for piece in pieces:  # waveforms of any lengths
            log_probs, encoded = recognizer.forward_streaming(piece, context)
        log_probs, encoded = recognizer.finish(context)
    """

    def __init__(self, network, tokenizer, sample_rate):
        self.network, self.tokenizer, self.sample_rate = network, tokenizer, sample_rate
        self.frame_seconds = network.frame_samples / sample_rate

    @property
    def latency(self):
        """Seconds that a result waits for at most: a chunk, or a frame of a causal encoder.

        The time that computing takes comes on top.
        """
        return self.network.latency / self.sample_rate

    @classmethod
    @names_run
    def load(cls, run, device=None, *, chunk_size=None):
        """The recogniser of a run.

        Arguments
        ---------
        run : str or Path
            Output folder of a streaming recipe, such as `conmamba_streaming_mini`.
        device : str or torch.device, optional
            A CUDA device if there is one, else the CPU.
        chunk_size : int, optional
            Frames of a chunk of an encoder that is not causal; by default the run's own.

        Raises
        ------
        FileNotFoundError, ValueError
            If the run cannot be loaded, see :func:`mamba_speech.run.load_run`; if its model cannot stream, or
            not over such chunks.
        RuntimeError
            If the device is not there.
        """
        return load_streaming_run(run, device, chunk_size)[0]

    def make_streaming_context(self, batch=1, chunk_size=None):
        """The context before the first sample; it tells its size: ``layer_bytes()``, ``total_bytes()``.

        See :meth:`modules.asr.streaming_network.StreamingNetwork.make_streaming_context`.
        """
        return self.network.make_streaming_context(batch, chunk_size)

    def forward_streaming(self, samples, context):
        """Read the next samples of each stream.

        Arguments
        ---------
        samples : numpy.ndarray or torch.Tensor
            (samples,) or (batch, samples), floats in -1..1, at the rate ``sample_rate``; any number of them, also none.
        context : modules.asr.streaming_network.StreamingContext
            Moved on to the end of the piece. An error leaves it as it was.

        Returns
        -------
        modules.asr.streaming_network.StreamingOutput
            CTC's log-probabilities (batch, new frames, vocabulary), and the encoder's output (batch, new frames,
            d_model), of the frames that are complete now.

        Raises
        ------
        ValueError
            If the piece has another shape or type or is not finite, or the context is another model's, has ended, or
            is in use by another thread.
        """
        if not isinstance(samples, torch.Tensor):
            try:
                # a copy, since torch takes neither reversed arrays nor those that cannot be written
                samples = torch.from_numpy(np.array(samples))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"a piece must be an array of floating numbers; got {type(samples).__name__}"
                ) from error
        return self.network.forward_streaming(
            samples[None] if samples.dim() == 1 else samples, context
        )

    def finish(self, context):
        """End the streams; the output of the frames that waited for the end of their chunk.

        Arguments
        ---------
        context : modules.asr.streaming_network.StreamingContext
            It takes no more pieces then.

        Raises
        ------
        ValueError
            If the context is another model's, has ended, or is in use by another thread.
        """
        return self.network.finish(context)


def load_streaming_run(run, device=None, chunk_size=None, optional=()):
    """A run's streaming recogniser, and its options.

    Arguments
    ---------
    run, device, chunk_size
        See :meth:`StreamingRecognizer.load`.
    optional : sequence of str
        Keys that are loaded where the run has them.

    Returns
    -------
    (StreamingRecognizer, dict)
        The options are as :func:`mamba_speech.run.load_run` gives them.

    Raises
    ------
    FileNotFoundError, ValueError, RuntimeError
        See :meth:`StreamingRecognizer.load`.
    """
    device = choose_device(device)
    options = load_run(
        run,
        wanted=["compute_features", "normalize", "sample_rate", "tokenizer_file"],
        optional=optional,
        selection_key=_SELECTION_KEYS,
    )
    check_types(options, Path(run) / OPTIONS_FILE, OPTION_TYPES)
    parts = (options[name].to(device) for name in ("compute_features", "normalize", "model"))
    network = StreamingNetwork(*parts, chunk_size=chunk_size)
    tokenizer, is_ctc = (
        Tokenizer(options["tokenizer_file"]),
        isinstance(network.model, CTCRecognizer),
    )
    check_tokenizer_size(run, tokenizer, network.model, few_is_well=is_ctc)
    return StreamingRecognizer(network, tokenizer, options["sample_rate"]), options


def greedy_tokens(log_probs, last, silent):
    """Tokens that CTC's best path adds with new frames; a token that goes on from the frame before is no new one.

    Source: Graves et al., "Connectionist temporal classification", ICML 2006, section 3.2.

    Arguments
    ---------
    log_probs : torch.Tensor
        (batch, frames, tokens).
    last : list of int
        Best index of each stream's last frame so far; the blank at the start.
    silent : collection of int
        Indices without a text, the blank among them.

    Returns
    -------
    (list of list of int, list of int)
        New tokens of each stream, and the last frame's indices.

    Example
    -------
    >>> import torch
    >>> frames = torch.nn.functional.one_hot(torch.tensor([[3, 3, 0, 3, 4]]), 5).float()
    >>> first, last = greedy_tokens(frames[:, :2], [0], {0})
    >>> first, last, greedy_tokens(frames[:, 1:], last, {0})
    ([[3]], [3], ([[3, 4]], [4]))
    """
    tokens, ends = [], []
    for best, before in zip(log_probs.argmax(-1).tolist(), last, strict=True):
        path = [before, *best]
        tokens.append([now for old, now in pairwise(path) if now != old and now not in silent])
        ends.append(path[-1])
    return tokens, ends
