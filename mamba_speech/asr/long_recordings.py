"""Recognition of a recording of any length in constant memory, window by window."""

from dataclasses import replace

from mamba_speech.asr.transcript import Transcript
from mamba_speech.asr.windows import (
    LONGEST_WINDOW,
    SHORTEST_WINDOW,
    cut_windows,
    evenly_spread,
    join_nbest,
    join_words,
)
from mamba_speech.audio import AudioError, AudioWarning, collected_warnings, recording_fault
from mamba_speech.audio.warnings import PART_LEFT_OUT
from mamba_speech.memory import return_freed_memory


def check_window(seconds, chunk_seconds=0.0):
    """Refuse a window that is too short for a model, or no number.

    Arguments
    ---------
    seconds : float
    chunk_seconds : float
        What a streaming model hears at once.

    Raises
    ------
    ValueError

    Example
    -------
    >>> check_window(1)
    Traceback (most recent call last):
        ...
    ValueError: max_window_seconds must be from 5 to 3600; got 1
    """
    numeric = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (numeric and SHORTEST_WINDOW <= seconds <= LONGEST_WINDOW):
        raise ValueError(
            f"max_window_seconds must be from {SHORTEST_WINDOW:g} to {LONGEST_WINDOW:g}; got {seconds!r}"
        )
    if seconds < chunk_seconds:
        raise ValueError(
            f"max_window_seconds must hold a chunk of the model, {chunk_seconds:g} s; got {seconds!r}"
        )


def transcribe_long(recognise, recording, sample_rate, seconds, batch_seconds, wanted, progress):
    """Recognise a recording window by window.

    Arguments
    ---------
    recognise : callable
        From a list of waveforms (samples,) and ``wanted`` to a list, of dictionaries with fields of a Transcript, and
        of errors.
    recording : mamba_speech.recordings.Recording
    sample_rate : int
    seconds : float
        Longest window.
    batch_seconds : float
        Audio of a batch of windows; 0 for one window at a time.
    wanted : dict
        `word_times` and `nbest`.
    progress : callable or None
        Gets the recording and the seconds that are done.

    Returns
    -------
    Transcript
    """
    odd, joined = [], _Joined(sample_rate, wanted, recording.name)
    try:
        with collected_warnings(odd):
            blocks = joined.counted(recording.blocks(sample_rate))
            windows = cut_windows(blocks, sample_rate, seconds)
            for batch in _batches(windows, batch_seconds * sample_rate):
                shared = any(one.before or one.after for one in batch)
                details = wanted | {"word_times": wanted["word_times"] or shared}
                found = recognise([one.waveform for one in batch], details)
                for window, result in zip(batch, found, strict=True):
                    joined.add(window, result)
                return_freed_memory()
                if progress is not None:
                    progress(recording, joined.samples / sample_rate)
        result = joined.result()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other recordings go on
        return Transcript(**recording.place(), error=recording_fault(recording.name, error))
    told = {"seconds": joined.samples / sample_rate, "warnings": (*odd, *joined.odd)}
    return Transcript(**result, **recording.place(), **told)


def _batches(windows, limit):
    """Lists of windows that are no longer together than a batch, with padding."""
    batch, longest = [], 0
    for window in windows:
        longest = max(longest, len(window.waveform))
        if batch and longest * (len(batch) + 1) > limit:
            yield batch
            batch, longest = [], len(window.waveform)
        batch.append(window)
    if batch:
        yield batch


class _Joined:
    """The texts of the windows so far."""

    def __init__(self, rate, wanted, name):
        self.rate, self.wanted, self.name = rate, wanted, name
        self.samples, self.odd, self.parts, self.failure = 0, [], [], None

    def counted(self, blocks):
        """Blocks as they are, whose samples are counted."""
        for block in blocks:
            self.samples += len(block)
            yield block

    def add(self, window, result):
        """Join what the next window gave."""
        start = window.first / self.rate
        end = start + len(window.waveform) / self.rate
        if not isinstance(result, dict):
            self._leave_out(start, end, result)
            result = {"text": "", "words": (), "nbest": ()}
        words = result.get("words")
        if words is not None:
            words = tuple(
                replace(one, start=one.start + start, end=one.end + start) for one in words
            )
        elif window.before or window.after:
            words = evenly_spread(result["text"], start, end)
        part = {"text": result["text"], "words": words, "nbest": result.get("nbest", ())}
        if window.before:
            self._join(part, start, start + window.before / self.rate)
        self.parts.append(part)

    def _join(self, part, start, end):
        last = self.parts[-1]
        for one, words in zip(
            (last, part), join_words(last["words"], part["words"], start, end), strict=True
        ):
            one["words"], one["text"] = words, " ".join(word.text for word in words)
            # other texts of the window would have to be joined too
            one["nbest"] = tuple(best._replace(text=one["text"]) for best in one["nbest"][:1])

    def _leave_out(self, start, end, error):
        self.failure = error
        text = f"{self.name}: {start:.1f} to {end:.1f} s were left out: {recording_fault(self.name, error)}"
        self.odd.append(AudioWarning(PART_LEFT_OUT, text))

    def result(self):
        """Fields of the Transcript."""
        if self.failure is not None and len(self.odd) == len(self.parts):
            raise self.failure
        if not self.parts:
            raise AudioError(f"{self.name}: holds no samples")
        found = {"text": " ".join(one["text"] for one in self.parts if one["text"])}
        if self.wanted["word_times"]:
            found["words"] = tuple(word for one in self.parts for word in one["words"])
        if self.wanted["nbest"] > 1:
            several = [one["nbest"] for one in self.parts if one["nbest"]]
            found["nbest"] = join_nbest(several, self.wanted["nbest"])
        return found
