"""Where an utterance of a stream ends: after a stated silence, or after a stated time.

A frame is silent if CTC's best token for it is the blank, and, where a level is stated, if it is quieter than that.
The rule follows Kaldi's online endpointing (kaldi-asr.org/doc/online_decoding.html): silence behind words, and a limit.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EndpointOptions:
    """When an utterance ends.

    Arguments
    ---------
    endpoint_silence : float or None
        Seconds of silence behind a sound that end an utterance; None: only `max_utterance` does.
    max_utterance : float
        Seconds after which an utterance ends anyway. From half of it on, a shorter and shorter silence suffices, so
        that the end falls between words.
    endpoint_level : float or None
        Level in dB of full scale; a louder frame is no silence. None: CTC's blanks alone decide.

    Raises
    ------
    ValueError
        If a time is not over 0, or the level is no number.
    """

    endpoint_silence: float | None = 0.8
    max_utterance: float = 30.0
    endpoint_level: float | None = None

    def __post_init__(self):
        silence, longest, level = self.endpoint_silence, self.max_utterance, self.endpoint_level
        if silence is not None and not (is_number(silence) and silence > 0):
            raise ValueError(f"endpoint_silence must be seconds over 0, or None; got {silence!r}")
        if not (is_number(longest) and longest > 0):
            raise ValueError(f"max_utterance must be seconds over 0; got {longest!r}")
        if level is not None and not is_number(level):
            raise ValueError(f"endpoint_level must be a number of dB, or None; got {level!r}")


def is_number(value):
    """Whether an option is a finite number; Python takes truth for a number.

    Example
    -------
    >>> is_number(0.8), is_number(True), is_number("0.8"), is_number(math.nan)
    (True, False, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class EndpointState:
    """Frames since an utterance's first sound, and silent frames at their end; none begun: 0."""

    frames: int = 0
    silent: int = 0

    @property
    def begun(self):
        """Whether there was a sound."""
        return self.frames > 0


def find_endpoint(silent, state, options, frame_seconds):
    """The first end of an utterance in new frames, of an utterance that has begun or begins with them.

    Arguments
    ---------
    silent : sequence of bool
        Whether each new frame is silent.
    state : EndpointState
    options : EndpointOptions
    frame_seconds : float
        Time between two frames.

    Returns
    -------
    (int, bool, EndpointState)
        Frames up to the end, or all; whether it is an end; the state there, a new one after an end.

    Example
    -------
    >>> options = EndpointOptions(endpoint_silence=0.08)
    >>> find_endpoint([False, True, False, True, True, True], EndpointState(), options, 0.04)
    (5, True, EndpointState(frames=0, silent=0))
    """
    limit = options.max_utterance / frame_seconds
    for count, is_silent in enumerate(silent, start=1):
        run = state.silent + 1 if is_silent else 0
        state = replace(state, frames=state.frames + 1, silent=run)
        # times in frames are rounded: 0.8 s of 40 ms are 20 frames, not 20.000000000000004
        if round(limit - state.frames, 6) <= 0:
            return count, True, EndpointState()
        if options.endpoint_silence is None:
            continue
        share = min(1.0, 2 * (1 - state.frames / limit))
        needed = options.endpoint_silence / frame_seconds * share
        if run and run >= round(needed, 6):
            return count, True, EndpointState()
    return len(silent), False, state
