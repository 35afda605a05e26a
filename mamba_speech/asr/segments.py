"""Timed words in pieces that people read: segments between pauses, and the cues of subtitles.

Source of the measures: the BBC's Subtitle Guidelines (version 1.2), sections 8 and 9: two lines, about 17 letters a
second; of the length of a line: Netflix's Timed Text Style Guide, 42 letters.
"""

import textwrap
from dataclasses import dataclass, replace
from itertools import pairwise

# seconds of silence between two segments
PAUSE = 0.6
LINE, LINES = 42, 2
# seconds of a cue, and letters that are read in a second
SHORTEST, LONGEST, PACE = 1.0, 7.0, 17.0
# seconds between two cues, so that the eye sees the change
GAP = 0.04


@dataclass(frozen=True)
class Segment:
    """Words that belong together, from the start of the first to the end of the last.

    Attributes
    ----------
    words : tuple of mamba_speech.asr.alignment.Word
    start, end : float
        Seconds.
    lines : tuple of str
        Lines of a cue; empty for a segment.
    """

    words: tuple
    start: float
    end: float
    lines: tuple = ()

    @property
    def text(self):
        """The words with spaces between them."""
        return " ".join(word.text for word in self.words)

    @property
    def confidence(self):
        """Mean confidence of the words."""
        return sum(word.confidence for word in self.words) / len(self.words)


def segments_of(words, pause=PAUSE):
    """Segments of words, cut at pauses.

    Arguments
    ---------
    words : sequence of mamba_speech.asr.alignment.Word
    pause : float
        Least seconds between two segments.

    Returns
    -------
    list of Segment

    Example
    -------
    >>> from mamba_speech.asr.alignment import Word
    >>> words = [Word("one", 0.1, 0.4, 0.9), Word("two", 0.5, 0.9, 0.9), Word("three", 2.0, 2.4, 0.9)]
    >>> [(one.text, one.start, one.end) for one in segments_of(words)]
    [('one two', 0.1, 0.9), ('three', 2.0, 2.4)]
    """
    groups = []
    for word in words:
        if not groups or word.start - groups[-1][-1].end >= pause:
            groups.append([])
        groups[-1].append(word)
    return [_segment(group) for group in groups]


def cues_of(words, seconds):
    """Cues of subtitles: two lines of 42 letters at most, shown for as long as they are read.

    A segment that is too long is cut where a pause is long and the halves are alike. A cue ends before the next one
    begins and within the recording.

    Arguments
    ---------
    words : sequence of mamba_speech.asr.alignment.Word
    seconds : float
        Duration of the recording.

    Returns
    -------
    list of Segment
        With `lines`.

    Example
    -------
    >>> from mamba_speech.asr.alignment import Word
    >>> words = [Word(f"word{number}", number, number + 0.9, 1.0) for number in range(9)]
    >>> [(one.lines, one.start, one.end) for one in cues_of(words, 8.9)]
    [(('word0 word1 word2 word3',), 0, 3.9), (('word4 word5 word6 word7 word8',), 4, 8.9)]
    """
    pieces = [piece for one in segments_of(words) for piece in _pieces(one)]
    if not pieces:
        return []
    ends = [after.start - GAP for after in pieces[1:]] + [seconds]
    return [
        replace(
            one,
            end=_shown_until(one, limit),
            lines=tuple(_lines(one.text)),
        )
        for one, limit in zip(pieces, ends, strict=True)
    ]


def _segment(words):
    return Segment(tuple(words), words[0].start, words[-1].end)


def _pieces(segment):
    """Parts of a segment that fit on the screen, each shown for no longer than a cue may be."""
    waiting, done = [segment], []
    while waiting:
        one = waiting.pop()
        fits = len(_wrapped(one.text, LINE)) <= LINES and one.end - one.start <= LONGEST
        if fits:
            done.append(one)
        elif len(one.words) == 1:
            done += _parts_of_word(one)
        else:
            place = _best_cut(one.words)
            # the first part is looked at first
            waiting += [_segment(one.words[place:]), _segment(one.words[:place])]
    return done


def _best_cut(words):
    """The place of a long pause that leaves two parts of like length."""
    whole = sum(len(word.text) + 1 for word in words)
    best, found, letters = -1.0, 1, 0
    for place, (before, after) in enumerate(pairwise(words), 1):
        letters += len(before.text) + 1
        worth = max(0.0, after.start - before.end) + 2 * min(letters, whole - letters) / whole
        if worth > best:
            best, found = worth, place
    return found


def _parts_of_word(segment):
    """A word too long for the screen or shown for too long, cut into parts of equal time."""
    (word,) = segment.words
    room = LINE * LINES
    parts = [word.text[at : at + room] for at in range(0, len(word.text), room)]
    step = (segment.end - segment.start) / len(parts)
    times = [segment.start + step * number for number in range(len(parts) + 1)]
    return [
        _segment([replace(word, text=text, start=start, end=min(end, start + LONGEST))])
        for text, (start, end) in zip(parts, pairwise(times), strict=True)
    ]


def _shown_until(cue, limit):
    """The end of a cue: long enough to be read, if the next one leaves the time."""
    wanted = max(cue.end, cue.start + SHORTEST, cue.start + len(cue.text) / PACE)
    wanted = min(wanted, cue.start + LONGEST, limit)
    # two cues of no time between them still are in order
    return max(wanted, cue.start)


def _lines(text):
    """One line, or two that are alike."""
    lines = _wrapped(text, LINE)
    if len(lines) < 2:
        return lines
    return next(
        found for width in range(1, LINE + 1) if len(found := _wrapped(text, width)) <= LINES
    )


def _wrapped(text, width):
    return textwrap.wrap(text, width, break_on_hyphens=False)
