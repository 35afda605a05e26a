"""What is said of one stream so far, as records for a screen or a program, and what the work on it costs."""

import statistics
import time
from collections import deque

# measurements that are kept, the newest ones: of hours at 40 ms
_KEPT = 100_000


class Session:
    """One stream through a live recogniser.

    Arguments
    ---------
    live : mamba_speech.asr.live.LiveRecognizer
    is_live : bool
        Whether the sound comes as time passes, so that the delay behind it means something.

    Attributes
    ----------
    samples : int
        Samples heard.

    Example
    -------
    Not run here, since it needs a trained run::

        session = Session(LiveRecognizer.load("results/CTC/conmamba_streaming_mini/1"))
        for piece in pieces:
            for record in session.hear(piece):
                print(record["type"], record["text"])
        print(session.finish(), session.summary())
    """

    def __init__(self, live, is_live=False):
        self.live, self.is_live, self.context = live, is_live, live.make_context()
        self.samples = self.words = 0
        self.line, self._partial = [], ""
        self.seconds_of_work, self._start = 0.0, None
        self._work, self._delays, self._waits = (deque(maxlen=_KEPT) for _ in range(3))

    @property
    def seconds(self):
        """Seconds of sound heard."""
        return self.samples / self.live.sample_rate

    @property
    def text(self):
        """The words of the line that has not ended yet, final ones and others."""
        return " ".join(filter(None, (_text(self.line), self._partial)))

    def hear(self, samples):
        """Take the next samples.

        Arguments
        ---------
        samples : torch.Tensor
            (samples,), floats in -1..1, at the recogniser's rate.

        Returns
        -------
        list of dict
            Records; the key ``type`` names the kind of each.

            - ``final``: ``text``, ``start``, ``end`` and ``words`` that change no more. A word has ``text``, ``start``,
              ``end`` and ``confidence``.
            - ``partial``: ``text`` behind all final words, which may change.
            - ``endpoint``: ``text``, ``start`` and ``end`` of a line that has ended.

            All have ``time``, the seconds heard so far.
        """
        arrived = time.monotonic()
        before = self.seconds
        updates = self.live.listen(samples, self.context)
        self.samples += len(samples)
        self._measure(arrived, before)
        return list(self._records(updates))

    def finish(self):
        """End the stream; the records of what was not final yet."""
        arrived = time.monotonic()
        updates = self.live.finish(self.context)
        self._measure(arrived, 0.0)
        return [*self._records(updates), *self._end_line()]

    def _measure(self, arrived, before):
        """Note what a call took, and how far behind the sound its end is."""
        now = time.monotonic()
        self.seconds_of_work += now - arrived
        # the start of the sound, by the piece that came with the least delay
        start = arrived - self.seconds
        self._start = start if self._start is None else min(start, self._start)
        chunks = (int(one / self.live.latency + 1e-6) for one in (before, self.seconds))
        if len(set(chunks)) > 1:
            self._work.append(now - arrived)
            self._delays.append(now - self._start - self.seconds)

    def _records(self, updates):
        for update in updates:
            if update.final:
                words = list(update.final)
                self.line += words
                self.words += len(words)
                self._waits += (self.seconds - word.end for word in words)
                yield self._record("final", words) | {"words": [_plain(word) for word in words]}
            if update.endpoint:
                yield from self._end_line()
            elif update.partial != self._partial:
                self._partial = update.partial
                yield {"type": "partial", "text": self._partial, "time": self._time()}

    def _end_line(self):
        self._partial = ""
        if self.line:
            yield self._record("endpoint", self.line)
            self.line = []

    def _record(self, kind, words):
        return {
            "type": kind,
            "text": _text(words),
            "start": round(words[0].start, 3),
            "end": round(words[-1].end, 3),
            "time": self._time(),
        }

    def _time(self):
        return round(self.seconds, 3)

    def summary(self):
        """The record at the end of a stream.

        Returns
        -------
        dict
            ``seconds`` heard and ``words``; ``real_time_factor``, the seconds of work for a second of sound;
            ``latency``, the seconds that a result waits for its chunk; ``work_p50`` and ``work_p95``, the seconds of
            work on a chunk; ``final_p50`` and ``final_p95``, the seconds of sound between a word's end and the word
            being final; of sound that comes as time passes ``delay_p50`` and ``delay_p95``, the seconds between the
            end of a chunk and its results.
        """
        told = {
            "type": "summary",
            "seconds": self._time(),
            "words": self.words,
            "real_time_factor": round(self.seconds_of_work / self.seconds, 4)
            if self.samples
            else None,
            "latency": round(self.live.latency, 4),
        }
        measured = {"work": self._work, "final": self._waits}
        if self.is_live:
            measured["delay"] = self._delays
        for name, values in measured.items():
            for percent in (50, 95):
                told[f"{name}_p{percent}"] = percentile(values, percent)
        return told


def percentile(values, percent):
    """A percentile of numbers; None without any.

    Example
    -------
    >>> percentile([1.0, 2.0, 3.0], 50)
    2.0
    """
    if not values:
        return None
    if len(values) == 1:
        return round(values[0], 6)
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 6)


def _text(words):
    return " ".join(word.text for word in words)


def _plain(word):
    times = {"start": round(word.start, 3), "end": round(word.end, 3)}
    return {"text": word.text, **times, "confidence": round(word.confidence, 3)}
