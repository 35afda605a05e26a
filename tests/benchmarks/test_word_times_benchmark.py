"""The benchmark of word times compares words that were recognised with their own events, and no others."""

import numpy as np

from mamba_speech.asr.alignment import Word


def words(text, *starts):
    return [Word(one, at, at + 0.1, 1.0) for one, at in zip(text.split(), starts, strict=True)]


def test_a_word_counts_if_it_was_recognised_and_its_event_was_told(load):
    benchmark = load("word_times")
    starts = {0: 0.1, 1: 0.5, 3: 1.5}
    found = benchmark.errors_of(words("a b x d", 0.12, 0.46, 1.0, 1.7), "a b c d", starts)
    assert np.allclose(found, [0.02, -0.04, 0.2])
    # a word that was inserted moves none of the others
    moved = benchmark.errors_of(words("y a c d", 0.0, 0.1, 1.0, 1.5), "a b c d", starts)
    assert np.allclose(moved, [0.0, 0.0])


def test_goals_are_met_only_by_both_figures(load):
    summary = load("word_times").summary
    assert summary([0.01, -0.04, 0.04] * 10, 30)["met"]
    assert not summary([0.05] * 30, 30)["met"]
    assert not summary([0.01] * 20 + [-0.4] * 10, 30)["met"]


def test_sentences_are_spoken_behind_their_silence_and_words_begin_in_them(load):
    benchmark = load("word_times")
    sentences = list(benchmark.spoken(3, seed=5))
    again = list(benchmark.spoken(3, seed=5))
    for (text, sound, starts), (_, same, _) in zip(sentences, again, strict=True):
        assert np.array_equal(sound, same)
        times = [starts[place] for place in sorted(starts)]
        assert times == sorted(times) and max(starts) < len(text.split())
        assert 0 <= times[0] and times[-1] < len(sound) / benchmark.SAMPLE_RATE
