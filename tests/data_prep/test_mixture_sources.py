"""Silent, short and broken recordings are known before mixtures are drawn, so that all wanted ones are made."""

import csv
import json
import os
import shutil
from itertools import combinations

import numpy as np
import pytest
import soundfile

from data_prep.mixtures import Settings, build_mixtures, draw_mixtures, read_list
from data_prep.mixtures.__main__ import main
from data_prep.mixtures.sources import CheckedSpeech
from tests.support.mixing import RATE, draw, read_set, same, write_noise

COUNTS = {"tr": 4, "cv": 2, "tt": 2}


def spoil(path, fault):
    """Replace a recording by one that cannot be a source."""
    if fault == "silent":
        soundfile.write(path, np.zeros(RATE // 2), RATE)
    elif fault == "short":
        write_noise(path, 0.05)
    elif fault == "two channels":
        write_noise(path, channels=2)
    elif fault == "no numbers":
        soundfile.write(path, np.full(RATE // 2, np.nan), RATE, "FLOAT")
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.write_bytes(b"" if fault == "empty" else b"no sound")


def made(folder):
    """Numbers of mixtures that were made and that were left out, by split."""
    places = {split: folder / "wav8k/min" / split / "mix" for split in COUNTS}
    counts = {split: len(list(place.iterdir())) for split, place in places.items()}
    return counts, len(list(folder.rglob("skipped_t?.csv")))


@pytest.mark.parametrize("fault", ["silent", "short", "two channels", "no numbers", "cut", "empty"])
def test_one_bad_recording_of_each_speaker_costs_no_mixture(tmp_path, speech, fault):
    for speaker in "abcdefgh":
        spoil(speech / f"{speaker}/1.wav", fault)
    draw(tmp_path / "out", speech)
    assert made(tmp_path / "out") == (COUNTS, 0)
    with open(tmp_path / "out/skipped_recordings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"{speaker}/1.wav" for speaker in "abcdefgh"]
    assert len({row["reason"] for row in rows}) == 1


def test_speakers_with_one_good_recording_are_mixed(tmp_path, speech):
    for speaker in "abcdefgh":
        spoil(speech / f"{speaker}/0.wav", "silent")
        spoil(speech / f"{speaker}/2.wav", "broken")
    command = ["--speech", str(speech), "--min_seconds", "0.1", "--jobs", "1"]
    # two speakers each are for validation and test: one pair
    main([str(tmp_path / "out"), *command, "--train", "6", "--valid", "1", "--test", "1"])
    assert made(tmp_path / "out") == ({"tr": 6, "cv": 1, "tt": 1}, 0)


def test_what_is_drawn_follows_from_the_seed_and_the_files_alone(tmp_path, speech):
    spoil(speech / "a/1.wav", "silent")
    spoil(speech / "b/0.wav", "broken")
    for name in ("one", "again"):
        draw(tmp_path / name, speech)
    assert same(read_set(tmp_path / "one"), read_set(tmp_path / "again"))
    speakers = {name: [f"{name}/{number}.wav" for number in range(3)] for name in "abcdefgh"}
    found = []
    for jobs in (1, 2):
        checked = CheckedSpeech(speech, 0.1, [Settings(str(speech))], jobs=jobs)
        found.append((checked.usable(speakers), checked.spans, checked.skipped))
    assert found[0] == found[1]


def test_what_cannot_be_made_is_refused_with_the_numbers_and_the_reasons(tmp_path, speech, capsys):
    for speaker in "abcdefgh":
        spoil(speech / f"{speaker}/0.wav", "silent")
        spoil(speech / f"{speaker}/2.wav", "broken")
    with pytest.raises(SystemExit, match="only 1 different mixtures .* split cv, not 2") as caught:
        draw(tmp_path / "out", speech)
    says = str(caught.value)
    assert "16 of 24 recordings are left out (8 silent" in says and "8 unreadable" in says
    assert not (tmp_path / "out").exists()


def write_late(path, silence, seconds):
    """A recording that is silent at first."""
    late = write_noise(path, seconds)
    late[: round(silence * RATE)] = 0
    soundfile.write(path, late, RATE)


def late_speech(folder):
    """Three short recordings, and three of which two begin when those are over."""
    for index, speaker in enumerate("abc"):
        write_noise(folder / speaker / "short.wav", 0.5)
        write_late(folder / speaker / "late.wav", (0.0, 0.6, 0.7)[index], 1.0)
    return folder


def test_all_pairs_whose_speakers_are_heard_together_are_drawn_and_no_other(tmp_path):
    folder = late_speech(tmp_path / "speech")
    speakers = {name: [f"{name}/short.wav", f"{name}/late.wav"] for name in "abc"}
    files = [name for own in speakers.values() for name in own]
    good = {
        frozenset(pair)
        for pair in combinations(files, 2)
        if pair[0][0] != pair[1][0]
        and not ("short" in "".join(pair) and {"b/late.wav", "c/late.wav"} & set(pair))
    }
    command = ["--speech", str(folder), "--min_seconds", "0.1", "--jobs", "1"]
    command += ["--valid", "0", "--test", "0"]
    main([str(tmp_path / "out"), *command, "--train", str(len(good))])
    listed = read_list(tmp_path / "out/lists/tr.csv")
    assert {frozenset(one.files[0] for one in mixture.sources) for mixture in listed} == good
    assert len(list((tmp_path / "out/wav8k/min/tr/mix").iterdir())) == len(good)
    with pytest.raises(SystemExit, match=f"only {len(good)} different mixtures of 2 .* not"):
        main([str(tmp_path / "more"), *command, "--train", str(len(good) + 1)])
    # padded, every pair is heard
    main([str(tmp_path / "max"), *command, "--train", str(len(good) + 1), "--mode", "max"])
    assert len(list((tmp_path / "max/wav8k/max/tr/mix").iterdir())) == len(good) + 1


def test_good_sets_that_are_rare_are_all_found():
    speakers = {name: [f"{name}{number}" for number in range(30)] for name in "abcd"}
    wanted = {frozenset(pair) for pair in (("a1", "b2"), ("c3", "d29"), ("a0", "d7"))}

    def fits(files):
        return frozenset(files) in wanted

    drawn = draw_mixtures(speakers, "tr", 3, fits=fits)
    assert {frozenset(one.files[0] for one in mixture.sources) for mixture in drawn} == wanted
    assert drawn == draw_mixtures(speakers, "tr", 3, fits=fits)
    with pytest.raises(ValueError, match="only 3 different mixtures"):
        draw_mixtures(speakers, "tr", 4, fits=fits)


def test_a_recording_that_goes_bad_before_it_is_mixed_is_named(tmp_path, speech):
    checked = CheckedSpeech(speech, 0.1, [Settings(str(speech))], jobs=1)
    speakers = checked.usable({name: [f"{name}/0.wav"] for name in "abc"})
    lists = {"tr": draw_mixtures(speakers, "tr", 3)}
    spoil(speech / "b/0.wav", "silent")
    build_mixtures(tmp_path / "out", lists, Settings(str(speech)), 1, False)
    with open(tmp_path / "out/wav8k/min/skipped_tr.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all("b/0.wav is silent" in row["reason"] for row in rows)


def test_a_replaced_recording_is_mixed_anew_and_no_other(tmp_path, speech):
    draw(tmp_path / "out", speech, "--speech_for_dynamic_mixing")
    before = read_set(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.wav")}
    changed = read_list(tmp_path / "out/lists/tr.csv")[0].sources[0].files[0]
    write_noise(speech / changed, 0.45, scale=0.2)
    draw(tmp_path / "out", speech, "--speech_for_dynamic_mixing")
    after = read_set(tmp_path / "out")
    draw(tmp_path / "fresh", speech, "--speech_for_dynamic_mixing")
    assert same(after, read_set(tmp_path / "fresh")) and not same(after, before)
    users = {
        one.id
        for one in read_list(tmp_path / "out/lists/tr.csv")
        if changed in [name for source in one.sources for name in source.files]
    }
    for path, time in times.items():
        uses = path.stem in users or path.parent.name + "/" + path.name == changed
        assert (path.stat().st_mtime_ns != time) == uses, path


def test_mixtures_whose_recordings_are_gone_stay(tmp_path, speech):
    draw(tmp_path / "out", speech)
    before = read_set(tmp_path / "out")
    lists = {"tr": read_list(tmp_path / "out/lists/tr.csv")}
    other = tmp_path / "other"
    build_mixtures(other, lists, Settings(str(speech)), 1, False)
    for path in speech.rglob("*.wav"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no mixture has all of its own"):
        build_mixtures(other, lists, Settings(str(speech)), 1, False)
    assert same(read_set(other / "wav8k/min/tr"), read_set(tmp_path / "out/wav8k/min/tr"))
    assert same(read_set(tmp_path / "out"), before)


def test_headers_alone_are_read_where_that_is_asked_for(tmp_path, speech):
    for speaker in "abcdefgh":
        spoil(speech / f"{speaker}/1.wav", "silent")
        spoil(speech / f"{speaker}/2.wav", "broken")
    checked = CheckedSpeech(speech, 0.1, [Settings(str(speech))], "header", jobs=1)
    usable = checked.usable({"a": [f"a/{number}.wav" for number in range(3)]})
    assert usable == {"a": ["a/0.wav", "a/1.wav"]}
    for speaker in "abcdefgh":
        write_noise(speech / f"{speaker}/1.wav")
    draw(tmp_path / "out", speech, "--verify", "header")
    assert made(tmp_path / "out") == (COUNTS, 0)


def test_names_that_no_list_can_hold_are_left_out_by_name(tmp_path, speech):
    for name in (b"a/caf\xe9.wav", b"b/x+y.wav"):
        os.rename(speech / f"{chr(name[0])}/0.wav", os.fsencode(speech) + b"/" + name)
    draw(tmp_path / "out", speech)
    text = (tmp_path / "out/skipped_recordings.csv").read_text()
    assert "caf\\udce9.wav" in text and "not UTF-8" in text and "x+y.wav" in text
    assert made(tmp_path / "out") == (COUNTS, 0)


def test_a_run_that_would_be_refused_reads_no_recording(tmp_path, speech, capfd):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("")
    with pytest.raises(SystemExit, match="holds something else than mixtures"):
        draw(tmp_path / "out", speech)
    assert "looking at recordings" not in capfd.readouterr().err


def test_too_few_speakers_are_refused_before_a_recording_is_read(tmp_path, speech, capfd):
    for name in "defgh":
        shutil.rmtree(speech / name)
    with pytest.raises(SystemExit, match="3 speakers are too few"):
        draw(tmp_path / "out", speech)
    assert "looking at recordings" not in capfd.readouterr().err


def test_sets_of_which_no_mixture_is_wanted_are_not_read(tmp_path):
    for part in ("train-clean-100", "dev-clean"):
        for speaker in "1", "2":
            write_noise(tmp_path / f"speech/{part}/{speaker}/3/{speaker}-3-0000.flac")
    command = ["--speech", str(tmp_path / "speech"), "--min_seconds", "0.1", "--jobs", "1"]
    main([str(tmp_path / "out"), *command, "--train", "1", "--valid", "0", "--test", "0"])
    looked = json.loads((tmp_path / "out/recordings.json").read_text())["recordings"]
    assert len(looked) == 2 and all(name.startswith("train") for name in looked)


def test_a_second_run_reads_no_recording_again(tmp_path, speech):
    settings, note = [Settings(str(speech))], tmp_path / "note.json"
    speakers = {name: [f"{name}/{number}.wav" for number in range(3)] for name in "ab"}
    first = CheckedSpeech(speech, 0.1, settings, note=note, jobs=1)
    usable = first.usable(speakers)
    note.write_text(json.dumps(first.to_note()))
    # with size and time of change as they were, only a run that reads sees the fault
    path = speech / "a/0.wav"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert CheckedSpeech(speech, 0.1, settings, note=note, jobs=1).usable(speakers) == usable
    os.utime(path)
    again = CheckedSpeech(speech, 0.1, settings, note=note, jobs=1)
    assert again.usable(speakers)["a"] == ["a/1.wav", "a/2.wav"]
    other = CheckedSpeech(speech, 0.2, settings, note=note, jobs=1)
    assert other.usable(speakers)["a"] == ["a/1.wav", "a/2.wav"], "another check is made anew"
