"""Where eSpeak NG says that words begin: told of every word, in order, without a change of the speech."""

import numpy as np
import pytest

from data_prep.spoken.synthesiser import Synthesiser
from data_prep.spoken.voices import Voice

TEXT = "Don't  wait for 25 minutes, and ring the bell."


@pytest.fixture(scope="module")
def synthesiser():
    with Synthesiser(events=True) as running:
        yield running


@pytest.mark.parametrize("voice", [Voice("en-us"), Voice("en-us", "f3", rate=120)])
def test_speech_with_events_is_the_speech_without(synthesiser, voice):
    with Synthesiser() as plain:
        expected = plain.speak(voice, TEXT, seed=5)
    samples, _ = synthesiser.speak_with_words(voice, TEXT, seed=5)
    assert np.array_equal(samples, expected)
    assert np.array_equal(synthesiser.speak(voice, TEXT, seed=5), expected)


def test_each_word_begins_at_its_sound_and_behind_a_pause(synthesiser):
    samples, starts = synthesiser.speak_with_words(Voice("en-us"), TEXT)
    rate = synthesiser.sample_rate
    # "for" and "the" may be spoken with the word before; numbers and contractions are one word each
    assert set(starts) >= {0, 1, 3, 4, 5, 6, 8} and max(starts) == 8
    times = [starts[place] for place in sorted(starts)]
    assert times == sorted(set(times)) and 0 <= times[0] and times[-1] < len(samples) / rate
    # the comma makes a pause, which ends where "and" begins
    begin = round(starts[5] * rate)
    before, behind = samples[begin - rate // 20 : begin], samples[begin : begin + rate // 20]
    assert np.abs(before).max() < 0.1 * np.abs(behind).max()


def test_words_are_told_only_by_an_engine_that_was_asked_for_events():
    with Synthesiser() as plain, pytest.raises(RuntimeError, match="events=True"):
        plain.speak_with_words(Voice("en-us"), TEXT)
