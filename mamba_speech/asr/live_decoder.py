"""What every live decoder does: utterances cut from a stream, words given as they become final, state carried along.

A decoder reads what :class:`mamba_speech.asr.streaming.StreamingRecognizer` gives of each piece. Its context holds all
that later results need, does not grow with the stream, and may be pickled.
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mamba_speech.asr.alignment import begins_word
from mamba_speech.asr.endpoint import EndpointOptions, EndpointState, find_endpoint

# changes with what a context holds, so that one of an earlier version is refused
_FORMAT = 1
# seconds of silence before an utterance's first sound that belong to it
LEAD = 1.0
# held while a context is taken
_CONTEXTS = threading.Lock()


@dataclass(frozen=True)
class LiveUpdate:
    """News of a stream.

    Attributes
    ----------
    final : tuple of mamba_speech.asr.alignment.Word
        Words behind all that were final before. They are never withdrawn and never repeated.
    partial : str
        Text behind all final words as it is believed now; it may change.
    endpoint : bool
        Whether the utterance ends behind the final words; ``partial`` is empty then.

    Example
    -------
    >>> from mamba_speech.asr.alignment import Word
    >>> LiveUpdate((Word("one", 0.1, 0.3, 0.9), Word("two", 0.4, 0.6, 0.8)), "thr").final_text
    'one two'
    """

    final: tuple = ()
    partial: str = ""
    endpoint: bool = False

    @property
    def final_text(self):
        """The new final words, with spaces between them."""
        return " ".join(word.text for word in self.final)


@dataclass
class DecoderContext:
    """What a decoder carries along one stream; it may be pickled, and go on in another process.

    Attributes
    ----------
    decoder : str
        Fingerprint of the decoder that the context belongs to.
    frames : int
        Frames read.
    lead : list of torch.Tensor or None
        The last silent frames before an utterance: log-probabilities, and the encoder's output where it is read.
    endpoint : mamba_speech.asr.endpoint.EndpointState
    utterance : object
        The decoder's own state of an utterance; None where none has begun.
    spoken : bool
        Whether the utterance has final words.
    partial : str
        Text of the last update that was not final.
    ended, busy : bool
        Whether the stream has ended, and whether a call is at work on the context.
    """

    decoder: str
    frames: int = 0
    lead: tuple | None = None
    endpoint: EndpointState = field(default_factory=EndpointState)
    utterance: object = None
    spoken: bool = False
    partial: str = ""
    ended: bool = False
    busy: bool = False

    def __getstate__(self):
        """What is pickled and copied: a copy is nobody's at work."""
        return vars(self) | {"busy": False}


class LiveDecoder(ABC):
    """From CTC's log-probabilities, piece by piece, to words.

    Subclasses read the frames of one utterance. Their states are never changed in place, so that an error leaves a
    context as it was.

    Arguments
    ---------
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    frame_seconds : float
        Time between two frames.
    endpoint : mamba_speech.asr.endpoint.EndpointOptions, optional
    """

    # whether the encoder's output is read
    reads_encoded = False

    def __init__(self, tokenizer, frame_seconds, endpoint=None):
        self.tokenizer, self.frame_seconds = tokenizer, frame_seconds
        self.endpoint = endpoint or EndpointOptions()
        self.silent_tokens = (tokenizer.blank, *tokenizer.control)
        self._lead = round(LEAD / frame_seconds)
        self._starts = [begins_word(label) for label in tokenizer.labels()]
        told = (_FORMAT, type(self).__name__, tokenizer.labels(), frame_seconds, self.endpoint)
        self._fingerprint = hashlib.sha256(repr((told, self._told())).encode()).hexdigest()

    def _told(self):
        """What tells decoders of a class apart, besides the tokens and the endpoint."""
        return ()

    @abstractmethod
    def _begin(self, start):
        """The state of an utterance that begins at a frame of the stream."""

    @abstractmethod
    def _read(self, state, log_probs, encoded):
        """The state after frames of an utterance, and a list of the words that are final now."""

    @abstractmethod
    def _partial(self, state):
        """The text behind the final words."""

    @abstractmethod
    def _end(self, state):
        """A list of the words that become final at the utterance's end."""

    def make_context(self):
        """The context before the first frame.

        Returns
        -------
        DecoderContext
        """
        return DecoderContext(self._fingerprint)

    @torch.no_grad()
    def step(self, log_probs, encoded, context, levels=None):
        """Read the next frames.

        Arguments
        ---------
        log_probs : torch.Tensor or array
            (frames, vocabulary) or (1, frames, vocabulary), any number of frames; outputs past the tokens are not read.
        encoded : torch.Tensor or None
            (frames, d_model) or (1, frames, d_model); only a joint search reads it.
        context : DecoderContext
            From :meth:`make_context`; moved on. An error leaves it as it was.
        levels : array, optional
            (frames,) in dB of full scale; read where the endpoint has a level.

        Returns
        -------
        list of LiveUpdate
            In order; empty if nothing has changed.

        Raises
        ------
        ValueError
            If an array has another shape or holds NaN, or the context is another decoder's, has ended, or is in use by
            another thread.
        """
        parts, silent = self._checked(log_probs, encoded, levels)
        with self._use(context) as moved:
            updates = self._advance(moved, parts, silent)
        return updates

    @torch.no_grad()
    def finish(self, context):
        """End the stream: all words become final.

        Arguments
        ---------
        context : DecoderContext
            It takes no more frames then.

        Returns
        -------
        list of LiveUpdate
            One, or none if there is nothing to tell.

        Raises
        ------
        ValueError
            If the context is another decoder's, has ended, or is in use by another thread.
        """
        with self._use(context) as moved:
            updates = self._close(moved)
            moved.ended = True
        return updates

    def _advance(self, moved, parts, silent):
        updates, final, position = [], [], 0
        while position < len(silent):
            if not moved.endpoint.begun:
                position = self._wait(moved, parts, silent, position)
                if moved.utterance is None:
                    break
            count, is_end, moved.endpoint = find_endpoint(
                silent[position:], moved.endpoint, self.endpoint, self.frame_seconds
            )
            heard = [None if part is None else part[position : position + count] for part in parts]
            moved.utterance, words = self._read(moved.utterance, *heard)
            final += words
            position += count
            moved.frames += count
            if is_end:
                moved.spoken |= bool(final)
                updates += self._close(moved, final)
                final = []
        partial = "" if moved.utterance is None else self._partial(moved.utterance)
        if final or partial != moved.partial:
            updates.append(LiveUpdate(tuple(final), partial))
        moved.spoken |= bool(final)
        moved.partial = partial
        return updates

    def _wait(self, moved, parts, silent, position):
        """Skip silence before an utterance; where it begins, begin it with the last silent frames."""
        first = next((at for at in range(position, len(silent)) if not silent[at]), len(silent))
        lead = []
        for index, part in enumerate(parts):
            new = None if part is None else part[position:first]
            if moved.lead is not None and new is not None:
                new = torch.cat([moved.lead[index], new])
            # a copy, since a view would keep the whole piece
            lead.append(None if new is None else new[max(0, len(new) - self._lead) :].clone())
        moved.frames += first - position
        moved.lead = tuple(lead)
        if first < len(silent):
            state = self._begin(moved.frames - len(lead[0]))
            # nothing becomes final in silence
            moved.utterance, _ = self._read(state, *lead)
            moved.lead = None
        return first

    def _close(self, moved, final=()):
        """The update at an utterance's end, and a context that waits for the next one."""
        words = [] if moved.utterance is None else self._end(moved.utterance)
        told = moved.spoken or words or moved.partial
        moved.utterance, moved.lead, moved.endpoint = None, None, EndpointState()
        moved.spoken, moved.partial = False, ""
        return [LiveUpdate((*final, *words), "", True)] if told else []

    def _checked(self, log_probs, encoded, levels):
        """Log-probabilities of the tokens, the encoder's output if it is read, and which frames are silent."""
        log_probs = _frames("log_probs", log_probs)
        count, size = log_probs.shape
        if size < len(self.tokenizer):
            raise ValueError(
                f"log_probs must have an output for each of the {len(self.tokenizer)} tokens; got {size}"
            )
        log_probs = log_probs[:, : len(self.tokenizer)].float().cpu()
        if self.reads_encoded:
            if encoded is None:
                raise ValueError(f"{type(self).__name__} reads the encoder's output: give encoded")
            encoded = _frames("encoded", encoded)
            if len(encoded) != count:
                raise ValueError(
                    f"encoded must have {count} frames, as log_probs; got {len(encoded)}"
                )
        else:
            encoded = None
        best = log_probs.argmax(-1)
        silent = torch.isin(best, torch.tensor(self.silent_tokens)).numpy()
        if self.endpoint.endpoint_level is not None:
            levels = np.full(count, np.nan) if levels is None else np.asarray(levels)
            if levels.shape != (count,) or np.isnan(levels).any():
                raise ValueError(
                    f"levels must be one number in dB for each of {count} frames, since an endpoint_level is set"
                )
            silent = silent & (levels < self.endpoint.endpoint_level)
        return (log_probs, encoded), silent.tolist()

    @contextmanager
    def _use(self, context):
        """A checked context's copy, which takes its place at the end if all went well; other calls are kept off."""
        if not isinstance(context, DecoderContext):
            raise ValueError(  # noqa: TRY004 - as every other wrong context
                f"a context must come from make_context; got {type(context).__name__}"
            )
        if context.decoder != self._fingerprint:
            raise ValueError(
                "the context is another decoder's, or of another version: make one with this decoder's make_context"
            )
        with _CONTEXTS:
            if context.ended:
                raise ValueError(
                    "the context's stream has ended: make another one with make_context"
                )
            if context.busy:
                raise ValueError(
                    "the context is in use by another call: each thread needs one of its own"
                )
            context.busy = True
        try:
            moved = replace(context)
            yield moved
            vars(context).update(vars(moved))
        finally:
            context.busy = False


def _frames(name, values):
    """Values as (frames, features), or an error that says what is wrong with them."""
    try:
        values = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array; got {type(values).__name__}") from error
    if values.dim() == 3 and len(values) == 1:
        values = values[0]
    if values.dim() != 2 or not values.is_floating_point():
        raise ValueError(
            f"{name} must be (frames, features) of one stream, floating numbers; got {tuple(values.shape)}"
        )
    if torch.isnan(values).any():
        raise ValueError(f"{name} must hold no NaN")
    return values
