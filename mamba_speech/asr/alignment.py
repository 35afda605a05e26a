"""Where words lie in time: tokens aligned with CTC's output, and the words that tokens make.

Plain arrays in and out. Frames become seconds by ``frame_seconds``; frame ``t`` covers ``t`` to ``t + 1`` of them.
CTC leaves most frames blank, so that times are marks near the sounds. Source: Kürzinger et al., "CTC-segmentation of
large corpora for German end-to-end speech recognition" (arXiv 2007.09127), section 2.
"""

import math
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch

# SentencePiece's mark of the start of a word
WORD_START = "\u2581"
# in place of the logarithm of 0, which torchaudio's search cannot add up
_LEAST = -1e4


class TokenSpan(NamedTuple):
    """A token, its first frame, the frame behind its last one, and its confidence, 0 to 1."""

    token: int
    start: int
    end: int
    confidence: float


@dataclass(frozen=True)
class Word:
    """A word in time.

    Attributes
    ----------
    text : str
    start, end : float
        Seconds.
    confidence : float
        Probability of the least certain token, 0 to 1: the geometric mean of the frames that carry it.

    Example
    -------
    >>> print(Word("one", 0.4, 0.64, 0.98))
    one
    """

    text: str
    start: float
    end: float
    confidence: float

    def __str__(self):
        return self.text


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where the most probable path through an utterance puts its tokens.

    Attributes
    ----------
    path : str or None
        None for a waveform.
    text : str
        Best-path text.
    seconds : float
        Duration of the audio.
    tokens : list of (str, float, float)
        Each token with the start and the end, in seconds, of the frames that carry it. CTC leaves
        most frames blank, so these are marks near the sounds rather than their extent.
    words : list of Word
        Each word with its times and its confidence.
    features : torch.Tensor
        Log-mel energies in dB, (frames, mels).
    frame_seconds : float
        Time between two frames of the features; the first is centred on 0.
    """

    path: str | None
    text: str
    seconds: float
    tokens: list
    words: list
    features: torch.Tensor
    frame_seconds: float


def align_tokens(log_probs, tokens, blank=0):
    """Align tokens with the frames of CTC's output, by the most probable path that spells them.

    Arguments
    ---------
    log_probs : array
        (frames, vocabulary), natural logarithms.
    tokens : sequence of int
        The tokens in order, without blanks.
    blank : int
        Index of CTC's blank.

    Returns
    -------
    list of TokenSpan
        One a token.

    Raises
    ------
    ValueError
        If the array has another shape or holds NaN, a token is none of the vocabulary or is the blank, or the frames
        are too few. A token that repeats the one before needs a blank between.

    Example
    -------
    >>> import numpy as np
    >>> probabilities = np.array([[0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    >>> [(token, start, end, round(sure, 2)) for token, start, end, sure in align_tokens(np.log(probabilities), [1])]
    [(1, 1, 3, 0.9)]
    """
    from torchaudio.functional import forced_align

    log_probs = torch.as_tensor(log_probs).float().numpy()
    tokens = [int(token) for token in tokens]
    _check_alignment(log_probs, tokens, blank)
    if not tokens:
        return []
    emission = torch.from_numpy(np.maximum(log_probs, _LEAST))[None]
    path, scores = forced_align(emission, torch.tensor([tokens]), blank=blank)
    path, scores = path[0].tolist(), scores[0].tolist()
    spans, start = [], 0
    for end in range(1, len(path) + 1):
        if end == len(path) or path[end] != path[start]:
            if path[start] != blank:
                spans.append(token_span(path[start], start, scores[start:end]))
            start = end
    return spans


def best_path(log_probs, silent):
    """The spans of the tokens on CTC's best path.

    Arguments
    ---------
    log_probs : torch.Tensor
        (frames, vocabulary), natural logarithms.
    silent : collection of int
        Indices without a text, the blank among them.

    Returns
    -------
    list of TokenSpan

    Example
    -------
    >>> best_path(torch.tensor([[0.0, -9.0], [-9.0, 0.0], [-9.0, 0.0]]), {0})
    [TokenSpan(token=1, start=1, end=3, confidence=1.0)]
    """
    values, tokens = log_probs.max(-1)
    spans, start, values = [], 0, values.tolist()
    for token, group in groupby(tokens.tolist()):
        end = start + sum(1 for _ in group)
        if token not in silent:
            spans.append(token_span(token, start, values[start:end]))
        start = end
    return spans


def align_roughly(log_probs, tokens, blank=0):
    """As :func:`align_tokens`, also where the frames are too few: tokens that lack frames stand at the beginning."""
    lack = max(0, frames_needed(tokens) - len(log_probs))
    # frames without an opinion in place of those that lack
    log_probs = np.concatenate([np.zeros((lack, log_probs.shape[1])), log_probs])
    return [
        one._replace(start=max(0, one.start - lack), end=max(1, one.end - lack))
        for one in align_tokens(log_probs, tokens, blank)
    ]


def token_span(token, start, log_probs):
    """The span of a token from the log-probabilities of its frames."""
    sure = math.exp(min(0.0, sum(log_probs) / len(log_probs)))
    return TokenSpan(token, start, start + len(log_probs), sure)


def frames_needed(tokens):
    """Least number of frames that spell tokens: one each, and a blank between a token and its repetition.

    Example
    -------
    >>> frames_needed([5, 5, 7])
    4
    """
    return len(tokens) + sum(one == other for one, other in pairwise(tokens))


def _check_alignment(log_probs, tokens, blank):
    if log_probs.ndim != 2 or np.isnan(log_probs).any():
        raise ValueError(
            f"log_probs must be (frames, vocabulary) without NaN; got {log_probs.shape}"
        )
    frames, vocabulary = log_probs.shape
    strange = [token for token in tokens if not 0 <= token < vocabulary or token == blank]
    if strange:
        raise ValueError(
            f"tokens must be of the vocabulary, 0 to {vocabulary - 1}, without the blank, {blank}; got {strange[0]}"
        )
    if frames < frames_needed(tokens):
        raise ValueError(
            f"{len(tokens)} tokens need {frames_needed(tokens)} frames or more; there are {frames}: give a text that "
            "is as short as the recording"
        )


def begins_word(label):
    """Whether a token's text begins a word."""
    return label.startswith(WORD_START)


def words_of(spans, tokenizer, frame_seconds, offset=0.0):
    """The words that aligned tokens make.

    A token that begins with SentencePiece's mark begins a word. The mark alone belongs to no word's time.

    Arguments
    ---------
    spans : list of TokenSpan
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    frame_seconds : float
        Time between two frames.
    offset : float
        Seconds at which frame 0 begins. No word begins before 0.

    Returns
    -------
    list of Word
    """
    labels = tokenizer.labels()
    groups = []
    for span in spans:
        if not groups or begins_word(labels[span.token]):
            groups.append([])
        groups[-1].append(span)
    words = []
    for group in groups:
        text = tokenizer.decode([span.token for span in group]).strip()
        heard = [span for span in group if labels[span.token] != WORD_START]
        if text and heard:
            start, end = (
                max(0.0, offset + frame * frame_seconds)
                for frame in (heard[0].start, heard[-1].end)
            )
            words.append(Word(text, start, end, min(span.confidence for span in heard)))
    return words


def align_words(log_probs, text, tokenizer, frame_seconds, offset=0.0):
    """Align a text, or its tokens, with the frames of CTC's output.

    Arguments
    ---------
    log_probs : array
        (frames, vocabulary), natural logarithms.
    text : str or sequence of int
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    frame_seconds, offset : float
        See :func:`words_of`.

    Returns
    -------
    list of Word

    Raises
    ------
    ValueError
        See :func:`align_tokens`.

    Example
    -------
    >>> import tempfile
    >>> import torch
    >>> from mamba_speech.asr.tokenizer import Tokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokenizer = Tokenizer.train(["a b"], f"{folder}/tokenizer.model", "char", size=10)
    >>> best = torch.tensor([tokenizer.labels().index(token) for token in "▁aa▁b"])
    >>> log_probs = torch.nn.functional.one_hot(best, len(tokenizer)).float().clamp(min=1e-3).log()
    >>> [(word.text, word.start, word.end) for word in align_words(log_probs, "a b", tokenizer, 0.04)]
    [('a', 0.04, 0.12), ('b', 0.16, 0.2)]
    """
    tokens = tokenizer.encode(text) if isinstance(text, str) else text
    spans = align_tokens(log_probs, tokens, tokenizer.blank)
    return words_of(spans, tokenizer, frame_seconds, offset)
