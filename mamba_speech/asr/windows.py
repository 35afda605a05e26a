"""Windows of a long recording, cut at pauses, and the texts of windows joined again.

A window without a pause shares some seconds with the next one. Their words are joined where both windows heard the
same words at the same time.
"""

from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np
import torch

from mamba_speech.asr.alignment import Word
from mamba_speech.asr.nbest import distinct_texts

# seconds of the shortest window, and of the longest that a user may ask for
SHORTEST_WINDOW, LONGEST_WINDOW = 5.0, 3600.0
# seconds that two windows share at most, and least seconds of the last window
_SHARED, _LAST = 4.0, 1.0
# a pause: least seconds, and the part of the way up between quiet and loud frames under which it stays
_PAUSE, _QUIET, _FRAME = 0.2, 0.25, 0.01
# decibels between quiet and loud frames, under which there are no pauses
_LEAST_RANGE = 6.0
# a pause that ends a window: least seconds, decibels above the quietest frames, their least distance from the loud
# ones, and seconds of it that the windows keep
_LONG_PAUSE, _NEAR_FLOOR, _CLEAR_RANGE, _EDGE = 0.3, 6.0, 15.0, 0.03
# seconds by which two windows may disagree about the time of a word
_APART = 0.5


@dataclass(frozen=True, eq=False)
class Window:
    """A piece of a recording.

    Attributes
    ----------
    first : int
        Place of the first sample in the recording.
    waveform : torch.Tensor
        (samples,)
    before, after : int
        Samples that the window shares with the one before it and the one after it.
    """

    first: int
    waveform: torch.Tensor
    before: int = 0
    after: int = 0


def cut_windows(blocks, sample_rate, seconds):
    """Cut a recording into windows; no more than the longest window and a block are in memory.

    A pause of 0.3 s ends a window. What is silent there is left out, but for 0.03 s on both sides: models hear single
    utterances in training. Speech that goes on for longer than a window is cut in the longest short
    pause of the window's second half.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        (samples,) each.
    sample_rate : int
    seconds : float
        Longest window.

    Yields
    ------
    Window

    Example
    -------
    >>> speech = torch.randn(10 * 1000)
    >>> speech[3000:4000] = 0
    >>> speech[9500:] = 0
    >>> [(one.first, len(one.waveform)) for one in cut_windows(speech.split(900), 1000, 8.0)]
    [(0, 3050), (3950, 5600)]
    """
    longest, edge = round(seconds * sample_rate), round(_EDGE * sample_rate)
    held, first, before = torch.zeros(0), 0, 0
    for block in blocks:
        held = torch.cat([held, block])
        while len(held) > longest:
            pauses = _long_pauses(held[:longest], sample_rate)
            if pauses:
                *parts, (end, _) = _between(pauses, longest, edge)
                yield from _windows(held, parts, first, before)
                shared = max(0, before - end)
            else:
                end, shared = _cut(held[:longest], sample_rate)
                yield Window(first, held[:end].clone(), before, shared)
                end -= shared
            first, before = first + end, shared
            held = held[end:].clone()
    if len(held):
        pauses = _long_pauses(held, sample_rate)
        parts = _between(pauses, len(held), edge)
        if len(parts) > 1 and len(held) - pauses[-1][1] < edge:
            # the recording ends in a pause
            parts.pop()
        yield from _windows(held, parts, first, before)


def _between(pauses, samples, edge):
    """First sample and end of what lies before, between and behind pauses, without what is silent alone."""
    starts = [0, *(max(0, end - edge) for _, end in pauses)]
    stops = [*(begin + edge for begin, _ in pauses), samples]
    silent = {0 if pauses and pauses[0][0] == 0 else None}
    return [pair for at, pair in enumerate(zip(starts, stops, strict=True)) if at not in silent]


def _windows(held, parts, first, before):
    """Windows of parts of what is held, whose first samples ``before`` the window before them has too."""
    for start, stop in parts:
        yield Window(first + start, held[start:stop].clone(), max(0, before - start))


def _long_pauses(waveform, rate):
    """Pairs of first sample and end of the pauses that end a window, in their order.

    They are so near to the quietest frames that a soft voice beside a loud one is no pause.
    """
    hop = max(2, round(_FRAME * rate))
    levels = _levels(waveform, hop)
    if not len(levels):
        return []
    quiet, loud = np.percentile(levels, (5, 95))
    if loud - quiet < _CLEAR_RANGE:
        return []
    # over some frames, since noise is a little louder now and then
    smooth = 10 * np.log10(np.convolve(10 ** (levels / 10), np.full(5, 0.2), "same"))
    is_quiet = np.pad((smooth < quiet + _NEAR_FLOOR).astype(int), 1)
    runs = np.flatnonzero(np.diff(is_quiet)).reshape(-1, 2) * hop
    return [(int(a), int(b)) for a, b in runs if b - a >= _LONG_PAUSE * rate]


def _levels(waveform, hop):
    """Levels of frames in dB."""
    frames = waveform[: len(waveform) // hop * hop].view(-1, hop)
    # not the mean square, to which a constant adds
    return 20 * np.log10(frames.std(-1).numpy() + 1e-4)


def _cut(waveform, rate):
    """Where a window ends, and the samples that the next one shares with it."""
    half, last = len(waveform) // 2, len(waveform) - round(_LAST * rate)
    place = _longest_pause(waveform, rate, half, last)
    if place is not None:
        return place, 0
    return len(waveform), min(round(_SHARED * rate), len(waveform) // 4)


def _longest_pause(waveform, rate, start, stop):
    """The middle of the longest pause between two samples, or None."""
    hop = max(2, round(_FRAME * rate))
    levels = _levels(waveform, hop)
    quiet, loud = np.percentile(levels, (5, 95))
    if loud - quiet < _LEAST_RANGE:
        return None
    is_quiet = levels < quiet + _QUIET * (loud - quiet)
    edges = np.flatnonzero(np.diff(np.pad(is_quiet[start // hop : stop // hop].astype(int), 1)))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return None
    begin, end = max(runs.tolist(), key=lambda run: run[1] - run[0])
    return (
        None
        if (end - begin) * hop < _PAUSE * rate
        else start // hop * hop + (begin + end) * hop // 2
    )


def evenly_spread(text, start, end):
    """The words of a text with times that are a guess: each as long as the others, with confidence 0."""
    texts = text.split()
    times = np.linspace(start, end, len(texts) + 1).tolist()
    return tuple(Word(one, *times[at : at + 2], 0.0) for at, one in enumerate(texts))


def join_words(before, after, start, end):
    """What is kept of the words of two windows that share some seconds.

    Arguments
    ---------
    before, after : sequence of mamba_speech.asr.alignment.Word
        Times are those of the recording.
    start, end : float
        The shared seconds.

    Returns
    -------
    before, after : tuple of Word

    Example
    -------
    >>> first = [Word("one", 0, 1, 1), Word("two", 2, 3, 1), Word("thr", 3, 4, 1)]
    >>> second = [Word("wo", 2, 2.9, 1), Word("three", 3, 4, 1), Word("four", 5, 6, 1)]
    >>> [[one.text for one in part] for part in join_words(first, second, 2.0, 4.0)]
    [['one', 'two'], ['three', 'four']]
    """
    tail = next((at for at, one in enumerate(before) if one.end > start), len(before))
    head = next((at for at, one in enumerate(after) if one.start >= end), len(after))
    texts = [one.text for one in before[tail:]], [one.text for one in after[:head]]
    same = [
        (tail + block.a + offset, block.b + offset)
        for block in SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks()
        for offset in range(block.size)
        if abs(_centre(before[tail + block.a + offset]) - _centre(after[block.b + offset])) < _APART
    ]
    middle = (start + end) / 2
    if same:
        # the agreed word that both windows heard far from their edges
        left, right = min(same, key=lambda pair: abs(_centre(before[pair[0]]) - middle))
        kept, added = before[: left + 1], after[right + 1 :]
    else:
        kept = [one for one in before if _centre(one) < middle]
        added = [one for one in after if _centre(one) >= middle]
    last = kept[-1].end if kept else 0.0
    return tuple(kept), tuple(_not_before(one, last) for one in added)


def _centre(word):
    return (word.start + word.end) / 2


def _not_before(word, time):
    return replace(word, start=max(word.start, time), end=max(word.end, time))


def join_nbest(pieces, count):
    """The best texts of a recording from the best texts of its windows; a score is the sum of theirs.

    Arguments
    ---------
    pieces : list of sequence of mamba_speech.asr.nbest.Hypothesis
        One a window, the best first.
    count : int

    Returns
    -------
    tuple of Hypothesis

    Example
    -------
    >>> from mamba_speech.asr.nbest import Hypothesis
    >>> two = [Hypothesis("a", -1.0), Hypothesis("b", -2.0)], [Hypothesis("c", -1.0), Hypothesis("d", -4.0)]
    >>> [tuple(one) for one in join_nbest(two, 3)]
    [('a c', -2.0), ('b c', -3.0), ('a d', -5.0)]
    """
    found = [("", 0.0)]
    for piece in pieces:
        longer = [
            (f"{text} {one.text}".strip(), score + one.score)
            for text, score in found
            for one in piece
        ]
        longer = sorted(longer, key=lambda pair: -pair[1])
        found = [tuple(one) for one in distinct_texts(longer)][:count] or found
    return tuple(distinct_texts(found))
