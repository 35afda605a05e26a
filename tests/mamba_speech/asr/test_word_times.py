"""Times of words: monotone, inside the recording, out of silence, for every word of the text."""

import numpy as np
import pytest
import torch

from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.asr.word_times import loud_frames, time_words

STEP = 0.04


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return Tokenizer.train(["don't 42 ab cd"], path, "char", size=40)


def probabilities(tokenizer, frames, least=1e-4):
    """Log-probabilities of one token a frame; a dot stands for the blank."""
    labels = tokenizer.labels()
    best = [tokenizer.blank if one == "." else labels.index(one) for one in frames]
    known = torch.nn.functional.one_hot(torch.tensor(best), len(tokenizer)).float()
    return known.clamp(min=least).log()


def assert_in_order(words, seconds):
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= seconds
    assert all(0 <= word.confidence <= 1 for word in words)


def test_digits_and_apostrophes_keep_their_times(tokenizer):
    log_probs = probabilities(tokenizer, "▁don't...▁42..▁ab....")
    words = time_words(log_probs, "don't 42 ab", tokenizer, STEP, 0.84)
    assert [word.text for word in words] == ["don't", "42", "ab"]
    assert_in_order(words, 0.84)
    starts = [(place - 0.5) * STEP for place in (1, 10, 15)]
    assert np.allclose([word.start for word in words], starts, atol=STEP)


def test_a_word_that_the_tokens_cannot_spell_stands_between_its_neighbours(tokenizer):
    log_probs = probabilities(tokenizer, "▁ab......▁cd..")
    words = time_words(log_probs, "ab ÜÖ cd", tokenizer, STEP, 0.6)
    assert [word.text for word in words] == ["ab", "ÜÖ", "cd"]
    assert words[1].confidence == 0 and words[0].end <= words[1].start <= words[1].end
    assert words[1].end <= words[2].start
    assert_in_order(words, 0.6)


def test_another_text_than_the_best_path_is_not_pulled_into_leading_silence(tokenizer):
    # the network heard "cd" and nothing before; the text that a search found has a word more
    log_probs = probabilities(tokenizer, "." * 20 + "▁..▁cd..")
    # faint traces of that word in the silence
    for frame, letter in ((2, "▁"), (3, "a"), (5, "b")):
        log_probs[frame, tokenizer.labels().index(letter)] = np.log(0.3)
    features = torch.full((4 * 28, 3), -80.0)
    features[4 * 20 :] = -10.0
    words = time_words(log_probs, "ab cd", tokenizer, STEP, 28 * STEP, features)
    assert words[0].start > 18 * STEP
    assert time_words(log_probs, "ab cd", tokenizer, STEP, 28 * STEP)[0].start < 18 * STEP
    assert_in_order(words, 28 * STEP)


def test_a_long_first_token_begins_before_its_frame_and_behind_a_pause(tmp_path):
    texts = ["abcdefgh abcdefgh ij", "abcdefgh ij abcdefgh"] * 20
    tokenizer = Tokenizer.train(texts, tmp_path / "tokenizer.model", "bpe", size=24)
    labels = tokenizer.labels()
    whole = labels.index("▁abcdefgh")
    blank = tokenizer.blank
    best = [blank] * 12 + [whole] + [blank] * 3 + tokenizer.encode("ij") + [blank] * 3
    log_probs = torch.nn.functional.one_hot(torch.tensor(best), len(tokenizer)).float()
    log_probs = log_probs.clamp(min=1e-4).log()
    text = tokenizer.decode([one for one in best if one != blank])
    free = time_words(log_probs, text, tokenizer, STEP, 0.8)
    assert free[0].start < 10 * STEP
    features = torch.full((80, 3), -10.0)
    features[:40] = -80.0
    paused = time_words(log_probs, text, tokenizer, STEP, 0.8, features)
    assert 9 * STEP <= paused[0].start <= 12 * STEP


def test_texts_with_more_tokens_than_frames_and_recordings_without_a_frame_have_times(tokenizer):
    for frames in (1, 2, 5):
        log_probs = probabilities(tokenizer, "." * frames)
        words = time_words(log_probs, "ab cd don't", tokenizer, STEP, frames * STEP)
        assert len(words) == 3
        assert_in_order(words, frames * STEP)
    assert time_words(probabilities(tokenizer, "..."), "", tokenizer, STEP, 0.1) == ()


@pytest.mark.parametrize("seed", range(20))
def test_words_are_monotone_and_inside_for_any_output(tokenizer, seed):
    random = np.random.default_rng(seed)
    frames = int(random.integers(1, 60))
    log_probs = torch.from_numpy(random.normal(0, 4, (frames, len(tokenizer)))).log_softmax(-1)
    features = torch.from_numpy(random.normal(-50, 20, (4 * frames - 3, 5)))
    seconds = random.uniform(0.2, 1) * frames * STEP
    text = " ".join(random.choice(["ab", "don't", "42", "é", "cd"], size=5))
    words = time_words(log_probs, text, tokenizer, STEP, seconds, features)
    assert [word.text for word in words] == text.split()
    assert_in_order(words, seconds)


def test_constant_sound_is_nowhere_loud():
    assert not loud_frames(torch.full((40, 3), -20.0), 10).any()
