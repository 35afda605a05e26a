"""Tokens aligned with frames, and the words that they make."""

import itertools
import math

import numpy as np
import pytest

from mamba_speech.asr.alignment import align_tokens, align_words, frames_needed, words_of
from mamba_speech.asr.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(letters):
    return Tokenizer(letters[0])


def spelt(path, blank=0):
    """The tokens of a path."""
    return [token for token, _ in itertools.groupby(path) if token != blank]


def test_the_alignment_is_the_most_probable_path_that_spells_the_tokens():
    random = np.random.default_rng(1)
    for tokens in ([1], [1, 1], [2, 1], [1, 2, 1]):
        log_probs = np.log(random.dirichlet(np.ones(3), size=5))
        paths = [path for path in itertools.product(range(3), repeat=5) if spelt(path) == tokens]
        best = max(paths, key=lambda path: sum(log_probs[range(5), path]))
        wanted, at = [], 0
        for token, group in itertools.groupby(best):
            end = at + len(list(group))
            if token:
                sure = math.exp(log_probs[at:end, token].mean())
                wanted.append((token, at, end, pytest.approx(sure, rel=1e-5)))
            at = end
        assert align_tokens(log_probs, tokens) == wanted


def test_probabilities_of_zero_are_no_obstacle():
    sure = np.full((4, 3), -np.inf)
    sure[range(4), [0, 1, 0, 2]] = 0.0
    assert align_tokens(sure, [1, 2]) == [(1, 1, 2, 1.0), (2, 3, 4, 1.0)]


@pytest.mark.parametrize(
    ("frames", "tokens", "told"),
    [
        (np.zeros((2, 3)), [1, 1], "2 tokens need 3 frames"),
        (np.zeros((2, 3)), [3], "0 to 2"),
        (np.zeros((2, 3)), [0], "without the blank"),
        (np.zeros(3), [1], "must be"),
        (np.full((2, 3), np.nan), [1], "without NaN"),
    ],
)
def test_what_cannot_be_aligned_is_refused(frames, tokens, told):
    with pytest.raises(ValueError, match=told):
        align_tokens(frames, tokens)


def test_no_tokens_have_no_spans_and_no_frames():
    assert align_tokens(np.zeros((0, 3)), []) == []
    assert frames_needed([]) == 0


def test_words_have_the_times_of_their_letters_and_the_doubt_of_the_least_certain(tokenizer):
    text = "one two"
    pieces = tokenizer.encode(text)
    log_probs = np.log(np.full((2 * len(pieces), len(tokenizer)), 1e-3))
    for place, token in enumerate(pieces):
        log_probs[2 * place, token] = log_probs[2 * place + 1, 0] = math.log(0.9)
    last = 2 * len(pieces) - 2
    log_probs[last, pieces[-1]] = math.log(0.5)
    first, second = align_words(log_probs, text, tokenizer, 0.04, offset=-0.02)
    mark = tokenizer.labels().index("\u2581")
    starts = [2 * place for place, token in enumerate(pieces) if token == mark]
    assert (first.text, second.text) == ("one", "two")
    # the mark of a word's start is no part of the word
    assert first.start == pytest.approx((starts[0] + 2) * 0.04 - 0.02)
    assert second.start == pytest.approx((starts[1] + 2) * 0.04 - 0.02)
    assert second.end == pytest.approx((last + 1) * 0.04 - 0.02)
    assert first.confidence == pytest.approx(0.9) and second.confidence == pytest.approx(0.5)


def test_marks_without_letters_are_no_words(tokenizer):
    mark = tokenizer.labels().index("\u2581")
    letter = tokenizer.labels().index("o")
    spans = [(mark, 0, 1, 1.0), (mark, 2, 3, 1.0), (letter, 3, 4, 0.5), (mark, 5, 6, 1.0)]
    from mamba_speech.asr.alignment import TokenSpan

    words = words_of([TokenSpan(*span) for span in spans], tokenizer, 0.04)
    assert [(word.text, word.start) for word in words] == [("o", 0.12)]
