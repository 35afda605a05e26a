"""Where the words of a recognised text lie in a recording: starts and ends in seconds, and a confidence.

CTC emits a token near the token's end, so that a long token that begins a word is late by most of its duration. The
duration is estimated from the letters of the token and the pace of the utterance. Source of the alignment: see
:mod:`mamba_speech.asr.alignment`; of the delay: Zeyer et al., "Why does CTC result in peaky behavior?"
(arXiv 2105.14849), section 1.
"""

from dataclasses import replace
from itertools import pairwise
from statistics import median

import numpy as np

from mamba_speech.asr.alignment import WORD_START, Word, align_roughly, begins_word, best_path

# a frame is loud from this part of the way up between the quiet and the loud frames of a recording
_LOUD = 0.25
# frames of a pause, in which no word begins
_PAUSE_FRAMES = 3
# taken off the log-probability of tokens in frames that are not loud, in forced alignment
_QUIET_PENALTY = 10.0
# frames by which a token of one letter comes late, and least frames from one word's last token to the next word
_DELAY, _STRIDE = 0.25, 1.5
# seconds up to which what lies between two words belongs to the first
_NO_GAP = 0.25
# frames a letter: the least and the most that an utterance may have, and of one with a single token
_PACES, _USUAL_PACE = (0.5, 4.0), 1.6


def time_words(log_probs, text, tokenizer, frame_seconds, seconds, features=None):
    """The words of a text with their times.

    A text that is the best path's keeps the path's own tokens; any other is aligned by force. Words are monotone
    and inside the recording. A word that the tokens cannot spell stands between its neighbours, with confidence 0.

    Arguments
    ---------
    log_probs : torch.Tensor
        (frames, vocabulary), natural logarithms of CTC's output.
    text : str
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    frame_seconds : float
        Time between two frames; frame 0 is centred on 0.
    seconds : float
        Duration of the recording.
    features : torch.Tensor, optional
        Log-mel energies in dB, (n, mels), of which some whole number belongs to each frame. No word then begins
        in a pause.

    Returns
    -------
    tuple of Word
        One for each of ``text.split()``.

    Example
    -------
    >>> import tempfile
    >>> import torch
    >>> from mamba_speech.asr.tokenizer import Tokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokenizer = Tokenizer.train(["a b"], f"{folder}/tokenizer.model", "char", size=10)
    >>> best = torch.tensor([tokenizer.labels().index(token) for token in "▁aa▁b"])
    >>> log_probs = torch.nn.functional.one_hot(best, len(tokenizer)).float().clamp(min=1e-3).log()
    >>> words = time_words(log_probs, "a b", tokenizer, 0.04, 0.2)
    >>> [(word.text, round(word.start, 2), round(word.end, 2)) for word in words]
    [('a', 0.01, 0.13), ('b', 0.13, 0.18)]
    """
    loud = None if features is None else loud_frames(features, len(log_probs))
    labels = tokenizer.labels()
    groups = _spans_of_words(log_probs, text, tokenizer, labels, loud)
    pace = _pace([span for group in groups for span in group], labels)
    words, last = [], -np.inf
    for word, group in zip(text.split(), groups, strict=True):
        heard = [span for span in group if labels[span.token] != WORD_START]
        if not heard:
            words.append(Word(word, None, None, 0.0))
            continue
        start = _start(heard[0], labels, pace, last, loud)
        last = heard[-1].end - 1
        # frame t stands for the time around t * frame_seconds
        times = [(frame - 0.5) * frame_seconds for frame in (start, max(start + 0.5, last + 1))]
        words.append(Word(word, *times, min(span.confidence for span in heard)))
    return _inside(words, seconds)


def loud_frames(features, frames):
    """Which frames of the encoder are loud.

    Arguments
    ---------
    features : torch.Tensor
        Log-mel energies in dB, (n, mels).
    frames : int

    Returns
    -------
    np.ndarray
        (frames,) of bool.

    Example
    -------
    >>> import torch
    >>> loud_frames(torch.tensor([-80.0, -80, -80, -80, -20, -20, -20, -20])[:, None], 4).tolist()
    [False, False, True, True]
    """
    energies = features.float().mean(-1).cpu().numpy()
    step = max(1, round(len(energies) / max(frames, 1)))
    # the loudest of those around a frame's centre
    padded = np.pad(energies, (step // 2, 2 * step), mode="edge")
    padded = np.pad(padded, (0, max(0, frames * step - len(padded))), mode="edge")
    energies = padded[: frames * step].reshape(frames, step).max(-1)
    quiet, loud = np.percentile(energies, (5, 95))
    return energies > quiet + _LOUD * (loud - quiet)


def _spans_of_words(log_probs, text, tokenizer, labels, loud):
    """The spans of each word's tokens; an empty list for a word that the tokens cannot spell."""
    words = text.split()
    spans = best_path(log_probs, {tokenizer.blank, *tokenizer.control})
    groups = []
    for span in spans:
        if not groups or begins_word(labels[span.token]):
            groups.append([])
        groups[-1].append(span)
    texts = [tokenizer.decode([span.token for span in group]).strip() for group in groups]
    if [one for one in texts if one] == words:
        return [group for group, one in zip(groups, texts, strict=True) if one]
    spelt = [tokenizer.encode(word) for word in words]
    penalised = log_probs.float().numpy().copy()
    if loud is not None:
        penalised[~loud] -= _QUIET_PENALTY * (np.arange(penalised.shape[1]) != tokenizer.blank)
    spans = iter(align_roughly(penalised, [one for word in spelt for one in word], tokenizer.blank))
    return [[_unpenalised(next(spans), log_probs) for _ in word] for word in spelt]


def _unpenalised(span, log_probs):
    """A span with the confidence that the network itself has."""
    values = log_probs[span.start : span.end, span.token].float()
    return span._replace(confidence=min(1.0, float(values.mean().exp())) if len(values) else 0.0)


def _letters(span, labels):
    return len(labels[span.token].strip(WORD_START))


def _pace(spans, labels):
    """Frames a letter, from the times between tokens."""
    paces = [
        (after.start - before.start) / letters
        for before, after in pairwise(spans)
        if (letters := _letters(after, labels)) > 0
    ]
    least, most = _PACES
    return min(max(median(paces), least), most) if paces else _USUAL_PACE


def _start(span, labels, pace, last, loud):
    """The frame, with a fraction, at which the word of a first token begins."""
    begin = span.start - pace * max(0, _letters(span, labels) - 1) - _DELAY
    begin = max(begin, last + _STRIDE)
    if loud is None:
        return begin
    frame = max(0, int(begin))
    quiet = ~loud[max(0, frame - _PAUSE_FRAMES + 1) : span.start + 1]
    # behind the last pause before the token, be it up to the token itself
    run, behind = 0, None
    for place, is_quiet in enumerate(quiet, max(0, frame - _PAUSE_FRAMES + 1)):
        run = run + 1 if is_quiet else 0
        if run >= _PAUSE_FRAMES:
            behind = place + 1
    return begin if behind is None else max(begin, min(behind, span.start))


def _inside(words, seconds):
    """Words with times for all of them, in order and within the recording."""
    timed, last = [], 0.0
    for place, word in enumerate(words):
        start, end = word.start, word.end
        if start is None:
            start = last
            end = next((one.start for one in words[place:] if one.start is not None), seconds)
        start = min(max(start, last), seconds)
        last = min(max(end, start), seconds)
        timed.append(Word(word.text, float(start), float(last), word.confidence))
    joined = [
        replace(one, end=after.start) if after.start - one.end <= _NO_GAP else one
        for one, after in pairwise(timed)
    ]
    return (*joined, *timed[-1:])
