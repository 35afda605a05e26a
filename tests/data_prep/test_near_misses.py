"""Near misses: words and phrases that sound like a keyword, and what a corpus makes of them."""

import csv
from itertools import chain

import pytest

from data_prep.spoken import generate_speechcommands
from data_prep.spoken.near_misses import near_misses, phoneme_distance, sounds_of
from data_prep.spoken.synthesiser import Synthesiser
from mamba_speech.files import read_json

SHORT = {"voices": 2, "valid_voices": 1, "test_voices": 1, "repeats": 1, "noise_seconds": 1.0}


@pytest.fixture(scope="module")
def synthesiser():
    with Synthesiser() as running:
        yield running


def test_a_distance_of_phonemes_is_a_metric_with_cheap_replacements_of_like_sounds():
    words = [["g", "oU"], ["g", "oU", "t"], ["k", "oU"], ["n", "oU"], ["I", "n"], []]
    for a in words:
        assert phoneme_distance(a, a) == 0
        for b in words:
            assert phoneme_distance(a, b) == phoneme_distance(b, a)
            for c in words:
                assert phoneme_distance(a, c) <= phoneme_distance(a, b) + phoneme_distance(b, c)
    # g and k are both plosives, g and n are not
    assert phoneme_distance(words[0], words[2]) == 0.5 < phoneme_distance(words[0], words[3]) == 1


def test_near_misses_sound_like_the_keyword_hold_none_and_come_nearest_first(synthesiser):
    words = ["go", "left", "alexa"]
    found = near_misses(synthesiser, words, 15)
    assert list(found) == words and all(0 < len(own) <= 15 for own in found.values())
    assert {"goat", "ago"} <= set(found["go"]) and "lift" in found["left"]
    assert "a letter" in found["alexa"]
    for word, own in found.items():
        (wanted,) = sounds_of(synthesiser, [word])
        assert not {part for one in own for part in one.lower().split()} & set(words)
        distances = [
            phoneme_distance(wanted, [*chain(*sounds_of(synthesiser, one.split()))]) for one in own
        ]
        assert distances == sorted(distances) and 0 < distances[0] and distances[-1] < len(wanted)


def test_about_half_of_the_other_speech_is_near_misses_and_the_rest_stays_what_it_was(tmp_path):
    options = SHORT | {"words": ["go", "left"], "other_speech_minutes": 1.5, "jobs": 2}
    plain = generate_speechcommands(tmp_path / "plain", **options)
    near = generate_speechcommands(tmp_path / "near", **options, near_misses=5)
    assert "near_misses" not in read_json(plain / "corpus.json")["options"]
    rows = {}
    for folder in (plain, near):
        with open(folder / "other_speech.csv", newline="", encoding="utf-8") as file:
            rows[folder] = {row["path"]: row for row in csv.DictReader(file)}
    misses = [row for row in rows[near].values() if row["text"].count(". ") == 7]
    assert 0.3 < len(misses) / len(rows[near]) < 0.7
    assert {row["split"] for row in misses} >= {"train"}
    # each speaker's first passage is a passage of sentences, as without near misses
    first = [path for path in rows[near] if path.endswith("_nohash_0.wav")]
    assert first and all(rows[near][path] == rows[plain][path] for path in first)


def test_near_misses_without_other_speech_are_refused(tmp_path):
    with pytest.raises(ValueError, match="near_misses must be 0 or more"):
        generate_speechcommands(tmp_path, **SHORT, near_misses=3, other_speech_minutes=0)
    with pytest.raises(ValueError, match="near_misses must be 0 or more"):
        generate_speechcommands(tmp_path, **SHORT, near_misses=-1)
