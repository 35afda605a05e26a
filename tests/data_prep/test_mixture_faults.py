"""What cannot be mixed is refused, or left out and listed, and what went missing is made again."""

import csv
import logging

import numpy as np
import pytest
import soundfile

from data_prep.mixtures import (
    Mixture,
    Settings,
    Source,
    build_mixtures,
    choose_splits,
    draw_mixtures,
    find_speech,
    write_list,
    write_speech,
)
from data_prep.mixtures.__main__ import main
from data_prep.mixtures.build import mix
from data_prep.mixtures.loading import UnusableError
from tests.support.mixing import RATE, build, draw, one_list, read_set, same, write_noise


def test_too_little_speech_is_refused_with_the_numbers(speech):
    found = find_speech(speech)
    few = {name: found[""][name] for name in "abc"}
    with pytest.raises(ValueError, match="3 speakers are too few"):
        choose_splits({"": few}, ["tr", "cv", "tt"])
    with pytest.raises(ValueError, match="only 27 different mixtures"):
        draw_mixtures(few, "tr", 28)
    assert len(draw_mixtures(few, "tr", 27)) == 27
    with pytest.raises(ValueError, match="mixtures of 3 need as many speakers"):
        draw_mixtures({name: few[name] for name in "ab"}, "tr", 1, 3)
    both = {"tr": few, "cv": {"c": few["c"], "z": few["c"]}}
    with pytest.raises(ValueError, match="the speaker c is in tr and in cv"):
        choose_splits(both, ["tr", "cv"])


def spoil_channels(path):
    write_noise(path, channels=2)


def spoil_numbers(path):
    soundfile.write(path, np.full(800, np.nan), RATE, "FLOAT")


def spoil_sound(path):
    soundfile.write(path, np.zeros(800), RATE)


def spoil_header(path):
    path.write_bytes(b"no sound")


FAULTS = {
    spoil_channels: "has 2 channels",
    spoil_numbers: "not finite",
    spoil_sound: "is silent",
    spoil_header: "is unreadable",
}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_a_bad_recording_costs_its_mixture_and_no_other(tmp_path, speech, spoil):
    mixtures = [one_list("a/0.wav", "b/0.wav")["tr"][0], one_list("c/0.wav", "d/0.wav")["tr"][0]]
    lists = {"tr": [Mixture(f"m{n}", one.sources) for n, one in enumerate(mixtures)]}
    spoil(speech / "b/0.wav")
    build_mixtures(tmp_path / "out", lists, Settings(str(speech)), 1, False)
    made = read_set(tmp_path / "out/wav8k/min/tr")
    assert set(made) == {f"{name}/m1.wav" for name in ("mix", "s1", "s2")}
    with open(tmp_path / "out/wav8k/min/skipped_tr.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == "m0" and FAULTS[spoil] in row["reason"] and "b/0.wav" in row["reason"]
    lists["tr"].pop()
    with pytest.raises(ValueError, match="no mixture of tr can be made; see .*skipped_tr.csv"):
        build_mixtures(tmp_path / "other", lists, Settings(str(speech)), 1, False)


def test_a_source_that_is_silent_where_it_was_cut_costs_its_mixture(tmp_path, speech):
    late = np.concatenate([np.zeros(RATE), 0.1 * np.ones(RATE)])
    soundfile.write(speech / "b/0.wav", late, RATE)
    with pytest.raises(ValueError, match="no mixture of tr can be made"):
        build(tmp_path, speech, one_list("a/0.wav", "b/0.wav"))
    assert "s2 is silent" in (tmp_path / "out/wav8k/min/skipped_tr.csv").read_text()
    assert len(build(tmp_path, speech, one_list("a/0.wav", "b/0.wav"), mode="max")[0]) == 2 * RATE


@pytest.mark.parametrize("full_scale", [False, True])
def test_sources_that_are_all_silent_where_they_are_cut_make_no_mixture(full_scale):
    late = np.concatenate([np.zeros(400), np.ones(50)])
    with pytest.raises(UnusableError, match="s1 is silent"):
        mix([late, np.zeros(400)], Settings("", full_scale=full_scale))


def test_what_one_mode_left_out_stays_listed_when_the_other_is_made(tmp_path, speech):
    late = write_noise(speech / "a/late.wav", 0.5)
    late[:3000] = 0
    soundfile.write(speech / "a/late.wav", late, RATE)
    lists = one_list("a/late.wav", "b/0.wav")
    lists["tr"].append(Mixture("sound", one_list("b/0.wav", "c/0.wav")["tr"][0].sources))
    for mode in ("min", "max"):
        build_mixtures(tmp_path / "out", lists, Settings(str(speech), mode=mode), 1, False)
    assert "s1 is silent" in (tmp_path / "out/wav8k/min/skipped_tr.csv").read_text()
    assert not (tmp_path / "out/wav8k/max/skipped_tr.csv").exists()


def test_a_source_that_went_missing_is_made_again(tmp_path, speech):
    draw(tmp_path / "out", speech)
    whole = read_set(tmp_path / "out")
    next((tmp_path / "out/wav8k/min/cv/s2").iterdir()).unlink()
    draw(tmp_path / "out", speech)
    assert same(read_set(tmp_path / "out"), whole)


def test_recordings_whose_names_become_one_are_both_written_for_dynamic_mixing(tmp_path, speech):
    names = ["a/b-c.wav", "a/b/c.wav", "a/b-c.flac"]
    for seconds, name in enumerate(names, start=1):
        write_noise(speech / name, seconds / 10)
    sources = [Source("a", (name,), 0.0) for name in names]
    for _ in range(2):
        folder = write_speech(tmp_path / "out", sources, Settings(str(speech)), 1, False)
        written = sorted((folder / "a").iterdir())
        lengths = [soundfile.info(path).frames for path in written]
        assert lengths == [RATE // 10, 2 * RATE // 10, 3 * RATE // 10]


def test_lists_that_test_on_known_speakers_say_so(tmp_path, speech, caplog):
    for split, pair in (("tr", "ab"), ("cv", "cd"), ("tt", "be")):
        write_list(tmp_path / f"{split}.csv", one_list(*(f"{name}/0.wav" for name in pair))["tr"])
    command = ["--speech", str(speech), "--jobs", "1", "--lists"]
    with caplog.at_level(logging.WARNING):
        main([str(tmp_path / "one"), *command, str(tmp_path)])
    assert "1 of the 2 speakers of tt, b first" in caplog.text
    caplog.clear()
    write_list(tmp_path / "tr.csv", one_list("a/0.wav", "c/0.wav")["tr"])
    main([str(tmp_path / "two"), *command, str(tmp_path)])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_list_of_which_every_mixture_lacks_a_recording_makes_nothing(tmp_path, speech):
    lists = one_list("a/0.wav", "b/9.wav")
    with pytest.raises(
        FileNotFoundError, match="list of tr names 1 recordings of 2 .*/b/9.wav: no such file"
    ):
        build_mixtures(tmp_path / "out", lists, Settings(str(speech)), 1, False)
    assert not (tmp_path / "out").exists()


def test_speech_for_dynamic_mixing_is_of_the_training_list_alone(tmp_path, speech):
    for split, pair in (("tr", "ab"), ("cv", "cd"), ("tt", "ef")):
        write_list(tmp_path / f"{split}.csv", one_list(*(f"{name}/0.wav" for name in pair))["tr"])
    command = ["--speech", str(speech), "--jobs", "1", "--lists", str(tmp_path)]
    main([str(tmp_path / "out"), *command, "--speech_for_dynamic_mixing"])
    written = {path.parent.name for path in (tmp_path / "out/wav8k/speech").rglob("*.wav")}
    assert written == {"a", "b"}


@pytest.mark.parametrize("peak", [0.91, 1.1, 3.0])
def test_a_peak_over_the_largest_is_brought_down_to_it(peak):
    loud = np.concatenate([np.full(99, 0.01), [peak]])
    samples = mix([loud, np.full(100, 0.01)], Settings(""))
    assert abs(samples.sum(axis=0)).max() / 32768 == pytest.approx(0.9, abs=1e-4)
