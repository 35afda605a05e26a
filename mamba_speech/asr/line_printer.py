"""How the records of a stream are printed: lines, with the last one rewritten on a terminal, or JSON objects."""

import os
import shutil
import sys
import unicodedata

from mamba_speech.audio.names import plain
from mamba_speech.printing import json_line

# back to the start of the line, and clear it
_CLEAR = "\r\x1b[K"


class JSONPrinter:
    """Every record as a JSON object on a line of its own."""

    def show(self, records, session):
        """Print records at once."""
        for record in records:
            print(json_line(record), flush=True)

    def end(self, summary, error=None):
        """Print the summary, and before it a record of type ``error`` if the sound ended by one."""
        if error:
            print(json_line({"type": "error", "error": error}), flush=True)
            _complain(error)
        print(json_line(summary), flush=True)


class LinePrinter:
    """Lines that have ended; on a terminal also the one that grows.

    Arguments
    ---------
    is_terminal : bool, optional
        Whether the last line can be written anew; by default as standard output says.
    """

    def __init__(self, is_terminal=None):
        if is_terminal is None:
            out = sys.stdout
            is_terminal = out is not None and out.isatty() and os.environ.get("TERM") != "dumb"
        self.is_terminal, self._shown = is_terminal, ""

    def show(self, records, session):
        """Print the lines that have ended, and what is said since."""
        for record in records:
            if record["type"] == "endpoint":
                times = (f"{record[name]:.2f}" for name in ("start", "end"))
                self._clear()
                print(*times, plain(record["text"]), sep="\t", flush=True)
        if not self.is_terminal:
            return
        width = shutil.get_terminal_size().columns - 1
        text = last_columns(plain(session.text), width)
        if text != self._shown:
            print(_CLEAR, text, sep="", end="", flush=True)
            self._shown = text

    def _clear(self):
        if self._shown:
            print(_CLEAR, end="")
            self._shown = ""

    def end(self, summary, error=None):
        """Print the summary on stderr, and before it what ended the sound."""
        self._clear()
        if error:
            _complain(error)
        print(f"mamba-speech: {summary_line(summary)}", file=sys.stderr)


def _complain(error):
    print(f"mamba-speech: error: {plain(error, backslashes=False)}", file=sys.stderr)


def summary_line(summary):
    """The summary of a stream as a sentence.

    Example
    -------
    >>> summary_line({"seconds": 2.0, "words": 1, "real_time_factor": 0.05, "latency": 0.32, "work_p50": 0.011,
    ...     "work_p95": 0.02, "final_p50": 0.4, "final_p95": 0.5})
    '2.0 s heard, words: 1, real-time factor 0.050; a result waits 320 ms for its chunk, and 11 ms for work (95 %: 20)'
    """
    text = f"{summary['seconds']:.1f} s heard, words: {summary['words']}"
    if summary["real_time_factor"] is not None:
        text += f", real-time factor {summary['real_time_factor']:.3f}"
    text += f"; a result waits {1000 * summary['latency']:.0f} ms for its chunk"
    if summary["work_p50"] is not None:
        text += f", and {_range(summary, 'work')} ms for work (95 %: {_range(summary, 'work', 95)})"
    if summary.get("delay_p50") is not None:
        text += (
            f"; it came {_range(summary, 'delay')} ms behind the chunk's end "
            f"(95 %: {_range(summary, 'delay', 95)})"
        )
    return text


def _range(summary, name, percent=50):
    return f"{1000 * summary[f'{name}_p{percent}']:.0f}"


def last_columns(text, width):
    """The end of a text that fits into so many columns of a terminal.

    Example
    -------
    >>> last_columns("one two three", 9)
    '...three'
    >>> last_columns("one", 9)
    'one'
    """
    if _columns(text) <= width:
        return text
    dots = "..." if width > 3 else ""
    room, kept = width - len(dots), []
    for letter in reversed(text):
        room -= _columns(letter)
        if room < 0:
            break
        kept.append(letter)
    return dots + "".join(reversed(kept)).lstrip()


def _columns(text):
    """Columns that a text takes: two a letter that is wide, none a mark on another."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)
