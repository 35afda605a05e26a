"""The benchmark of wake words: what counts as a miss and a false alarm, thresholds, PocketSphinx, a short run."""

import json
import os
import sys

import numpy as np
import pytest
import soundfile

from tests.support.benchmarks import FOLDER, run
from tests.support.faults import refusal
from tests.support.recipes import call_main


def event(label, middle, score):
    return {"label": label, "start": middle - 0.3, "end": middle + 0.3, "score": score}


@pytest.fixture
def truth():
    clips = [("a", 10.0, "u"), ("a", 20.0, "v"), ("b", 30.0, "u"), ("b", 40.0, "w")]
    return {
        "labels": ["a", "b"],
        "background_seconds": 3600.0,
        "events": [
            {"label": label, "start": start, "end": start + 2, "speaker": speaker}
            for label, start, speaker in clips
        ],
    }


def test_the_best_event_in_a_clip_counts_and_a_wrong_word_is_a_false_alarm(load, truth):
    events = [
        event("a", 11, 2.0),
        event("a", 11.5, 3.0),  # once more in the same clip
        event("b", 11, 4.0),  # another word's clip
        event("b", 32.2, 1.0),  # just behind its clip
        event("b", 60, 5.0),
    ]
    scores = load("wake_words_scores").score_events(events, truth)
    assert scores.hits.tolist() == [3.0, -np.inf, 1.0, -np.inf]
    assert scores.alarms["a"].tolist() == [] and scores.alarms["b"].tolist() == [5.0, 4.0]
    assert scores.doubles == 1 and scores.hours == 1.0


def test_a_threshold_for_each_word_misses_no_more_than_one_for_all(load):
    wake = load("wake_words_scores")
    random = np.random.default_rng(0)
    for _ in range(20):
        words = ["a"] * 15 + ["b"] * 15
        hits = random.normal(2, 1, 30) + np.array([5.0] * 15 + [0.0] * 15)
        alarms = {
            "a": np.sort(random.normal(4, 2, 20))[::-1],
            "b": np.sort(random.normal(-1, 2, 20))[::-1],
        }
        scores = wake.Scores(words, words, hits, alarms, vocabulary=["a", "b"])
        for allowed in (0, 3, 7):
            above, false = scores.shifted(wake.tune(scores, allowed))
            assert (false >= 0).sum() <= allowed
            one = wake.missed_at(*scores.shifted({"a": 0.0, "b": 0.0}), allowed)
            assert (above < 0).sum() <= one.sum()


def test_misses_fall_with_false_alarms_and_intervals_hold_them(load, truth):
    wake = load("wake_words_scores")
    events = [event("a", 11, 3.0), event("b", 31, 1.0), event("a", 60, 2.0), event("b", 41, 0.5)]
    scores = wake.score_events(events, truth)
    figures, missed = wake.compare([scores, scores], [scores, scores])
    assert figures["one threshold"]["curve"][:2] == [75.0, 25.0]
    # the false alarm is of the other word, whose threshold alone is higher
    found = figures["a threshold a word"]["at"][0]
    assert found["missed"] == 25.0 and found["runs"] == [25.0, 25.0]
    assert found["low"] <= 25.0 <= found["high"]
    assert figures["tuned"][0]["false_alarms"] == [0, 0]
    assert missed["one threshold"][0][0].tolist() == [False, True, True, True]


def test_pocketsphinx_hears_a_word_at_its_place_however_the_stream_is_cut(load, tmp_path):
    pytest.importorskip("pocketsphinx")
    from data_prep.spoken.keywords import SpokenWord, speak_word
    from data_prep.spoken.synthesiser import Synthesiser
    from data_prep.spoken.voices import speaker_table

    engines = load("wake_words_engines")
    random = np.random.default_rng(1)
    speaker = speaker_table("en", "test", seed=1)[1]
    with Synthesiser() as synthesiser:
        spoken = SpokenWord("computer", speaker, 0, (1,))
        word, _ = speak_word(synthesiser, spoken, 1.0, random)
    stream = 1e-3 * random.standard_normal(16000 * 12)
    stream[16000 * 5 : 16000 * 5 + len(word)] += word
    soundfile.write(tmp_path / "stream.wav", stream, 16000)
    spotter = engines.PocketSphinx(["computer", "smart_mirror"], {"mirror": ["M IH R ER"]})
    assert spotter.spoken["smart_mirror"] == ["S M AA R T  M IH R ER"]
    for spotter.PIECE in (60, 6, 7):
        best = max(spotter.events(tmp_path / "stream.wav"), key=lambda one: one["score"])
        assert best["label"] == "computer"
        assert 4.9 < (best["start"] + best["end"]) / 2 < 5.2 + len(word) / 16000


def test_a_word_without_pronunciation_and_a_missing_package_are_said(load, monkeypatch):
    engines = load("wake_words_engines")
    if "pocketsphinx" in sys.modules or _is_installed("pocketsphinx"):
        with pytest.raises(ValueError, match="no 'zzyx' of 'zzyx'.*--pronunciation zzyx="):
            engines.PocketSphinx(["zzyx"], {})
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(RuntimeError, match="pip install pocketsphinx"):
        engines.PocketSphinx(["computer"], {})


def _is_installed(name):
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_wrong_options_are_refused(load, capsys, monkeypatch):
    options_of = load("wake_words").options_of
    monkeypatch.delenv("SPEECH_DATA", raising=False)
    for given, words in (
        ([], "or set SPEECH_DATA"),
        (["--data_folder", "a", "--background", "b"], "--snr needs --noise"),
        (
            ["--data_folder", "a", "--background", "b", "--snr", "--pronunciation", "boy"],
            "WORD=PHONES",
        ),
    ):
        with pytest.raises(SystemExit):
            options_of(given)
        assert words in capsys.readouterr().err


def test_a_missing_folder_is_one_sentence(tmp_path, load):
    load("measure")
    given = ["--data_folder", tmp_path / "none", "--background", tmp_path, "--snr"]
    given += ["--spoken_minutes", "0", "0", "--work", tmp_path / "work", "--out", tmp_path / "out"]
    said = refusal(call_main, FOLDER, "wake_words", *given)
    assert "none does not exist" in said


@pytest.mark.exhaustive
@pytest.mark.data("wake_words", "librispeech_asr", "noise_rir")
def test_a_quick_run_compares_both_on_the_same_streams(tmp_path):
    pytest.importorskip("pocketsphinx")
    done = run("wake_words.py", "--quick", "--work", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "quick/results/wake_words.json").read_text())
    assert list(result["conditions"]) == ["clean", "10"]
    for spotters in result["conditions"].values():
        assert list(spotters) == ["this project", "PocketSphinx"]
        for figures in spotters.values():
            curve = figures["a threshold a word"]["curve"]
            assert all(0 <= one <= 100 for one in curve) and curve == sorted(curve, reverse=True)
            assert figures["clips"] == 18 and figures["hours"] > 0
    again = run("wake_words.py", "--quick", "--work", tmp_path)
    # streams, runs and events are there
    assert "training" not in again.stderr and "clean ..." not in again.stderr
    assert os.path.getsize(tmp_path / "quick/results/wake_words.png") > 0
    # runs of two kinds have rows of their own
    (trained,) = (one.parent for one in tmp_path.rglob("results.json"))
    named = run("wake_words.py", f"a={trained}", trained, "--quick", "--work", tmp_path)
    assert named.returncode == 0, named.stderr
    result = json.loads((tmp_path / "quick/results/wake_words.json").read_text())
    assert result["runs"] == {"a": 1, "this project": 1}
    for condition, spotters in result["conditions"].items():
        assert list(spotters) == ["a", "this project", "PocketSphinx"]
        assert spotters["a"]["words"] == spotters["this project"]["words"]
        assert list(result["differences"][condition]) == ["a", "this project"]
