"""VoxCeleb's layouts to manifests: splits, held-out speakers, validation trials, faults, repetition."""

import csv
import json
import logging
import os
import sys

import numpy as np
import pytest
import soundfile

from data_prep.speakers.pairs import draw_trials
from data_prep.trials import read_trials
from data_prep.voxceleb_prepare import prepare_voxceleb
from tests.support.media import write_media

OPTIONS = {"valid_speakers": 2, "seed": 5}


@pytest.fixture
def write():
    """A function that writes a recording of some seconds and makes its folder."""

    def write_recording(path, seconds=0.1, rate=16000):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(round(seconds * rate), 0.1), rate)

    return write_recording


@pytest.fixture
def corpus(tmp_path, write):
    """Six speakers with two sessions of two recordings each, in two parts as VoxCeleb1 is unpacked."""
    root = tmp_path / "corpus"
    for number in range(6):
        part = "vox1_dev_wav" if number < 4 else "vox1_test_wav"
        for session in ("vidA", "vidB"):
            for index in (1, 2):
                write(root / part / f"wav/id1000{number}/{session}/0000{index}.wav")
    return root


def read(path):
    """Rows of a manifest."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def speakers_of(rows):
    """The speakers of a manifest."""
    return {row["speaker"] for row in rows}


def test_manifests_hold_every_recording_once_and_share_no_speaker(corpus, tmp_path):
    found = prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS)
    train, valid = read(found["train"]), read(found["valid"])
    assert list(train[0]) == ["ID", "duration", "wav", "start", "stop", "speaker", "session"]
    assert len(train) == 16 and len(valid) == 8
    assert len(speakers_of(valid)) == 2 and not speakers_of(train) & speakers_of(valid)
    assert len({row["ID"] for row in train + valid}) == 24
    for row in train + valid:
        assert row["wav"].split("/")[-3:-1] == [row["speaker"], row["session"]]
        assert (row["duration"], row["start"], row["stop"]) == ("0.1", "0", "1600")
    assert json.loads(found["speakers"].read_text()) == sorted(speakers_of(train))


def test_validation_trials_join_sessions_of_one_speaker_and_pairs_of_two(corpus, tmp_path):
    found = prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS)
    trials = read_trials(found["valid_trials"], corpus)
    valid = {row["wav"]: row for row in read(found["valid"])}
    # four recordings of each of two speakers have no more pairs
    assert len(trials) == 24 and trials.labels.sum() == 8 and not trials.duplicates
    for label, left, right in zip(trials.labels, trials.enrolment, trials.test, strict=True):
        one, other = (valid[trials.paths[k]] for k in (left, right))
        assert (one["speaker"] == other["speaker"]) == bool(label)
        assert not label or one["session"] != other["session"]
    few = prepare_voxceleb(corpus, tmp_path / "few", n_valid_trials=6, **OPTIONS)
    assert read_trials(few["valid_trials"]).labels.tolist() == 3 * [1] + 3 * [0]


def test_one_validation_speaker_of_a_classification_is_one_error(corpus, tmp_path):
    options = OPTIONS | {"split": "utterance", "n_speakers": 3, "n_utterances": 6}
    with pytest.raises(ValueError, match="validation recordings give .* 0 impostor trials"):
        prepare_voxceleb(corpus, tmp_path / "save", **options)


def test_links_in_a_circle_are_passed_over(corpus, tmp_path):
    (corpus / "circle").symlink_to("circle")
    found = prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS)
    assert len(read(found["train"])) == 16
    assert len(read_trials(found["valid_trials"], corpus)) == 24


def test_few_target_trials_get_at_most_ten_impostors_each():
    sessions = {f"id{speaker}": {0: [2 * speaker, 2 * speaker + 1]} for speaker in range(12)}
    for count, impostors in ((1000, 120), (60, 48), (16, 8)):
        labels = [label for label, *_ in draw_trials(sessions, {}, count, seed=1, ratio=10)]
        assert labels.count(0) == impostors and labels.count(1) == min(12, count // 2)


def test_half_of_the_impostors_have_the_same_sex_where_the_corpus_tells_it(corpus, tmp_path):
    rows = [f"id1000{k}\tName\t{'mf'[k % 2]}\tUK\tdev\n" for k in range(6)]
    (corpus / "vox1_meta.csv").write_text("VoxCeleb1 ID\tVGGFace1 ID\tGender\n" + "".join(rows))
    options = OPTIONS | {"valid_speakers": 4, "n_valid_trials": 32}
    found = prepare_voxceleb(corpus, tmp_path / "save", **options)
    trials = read_trials(found["valid_trials"])
    numbers = [int(name.split("/")[-3][2:]) for name in trials.files]
    same = [
        numbers[left] % 2 == numbers[right] % 2
        for label, left, right in zip(trials.labels, trials.enrolment, trials.test, strict=True)
        if not label
    ]
    assert len(same) == 16 and 6 <= sum(same) <= 10


def test_speakers_of_trial_lists_are_in_no_manifest_under_any_name(corpus, tmp_path, write, caplog):
    caplog.set_level(logging.INFO)
    file = tmp_path / "list.txt"
    file.write_text(
        "1 id10004/vidA/00001.wav id10004/vidB/00001.wav\n0 id10004/vidA/00001.wav id10005/vidA/00001.wav\n"
    )
    for speaker in ("10004", "77"):
        write(tmp_path / "books" / speaker / "chapter" / "1.wav")
    options = OPTIONS | {"trials": file, "other_folders": [tmp_path / "books"]}
    found = prepare_voxceleb(corpus, tmp_path / "save", **options)
    assert found["trials"] == {"list": file}
    train, valid = read(found["train"]), read(found["valid"])
    assert speakers_of(train) | speakers_of(valid) == {
        *(f"id1000{k}" for k in range(4)),
        "books:77",
    }
    assert speakers_of(valid) <= {f"id1000{k}" for k in range(4)}
    assert "3 speakers of the trial lists, with 9 recordings, are kept out" in caplog.text
    # a list of `<speaker>/<file>` names nobody two folders above
    (tmp_path / "flat.txt").write_text(
        "1 77/chapter/1.wav 77/chapter/1.wav\n0 id10001/vidA/00001.wav x.wav\n"
    )
    write(tmp_path / "else" / "x.wav")
    with pytest.raises(FileNotFoundError, match=r"flat.txt names x.wav of 3 recordings"):
        prepare_voxceleb(corpus, tmp_path / "save", **options | {"trials": tmp_path / "flat.txt"})
    options |= {"trials": [tmp_path / "flat.txt"], "trial_folders": [tmp_path / "else"]}
    found = prepare_voxceleb(corpus, tmp_path / "save", **options)
    assert not {"books:77", "id10001"} & speakers_of(read(found["train"]) + read(found["valid"]))


def test_a_list_of_speakers_without_sessions_keeps_them_out_too(corpus, tmp_path, write):
    for name in ("anna", "ben"):
        write(tmp_path / "people" / name / "first.wav")
    file = tmp_path / "list.txt"
    file.write_text("1 anna/first.wav anna/first.wav\n0 anna/first.wav id10005/vidA/00001.wav\n")
    options = OPTIONS | {"trials": file, "other_folders": tmp_path / "people"}
    found = prepare_voxceleb(corpus, tmp_path / "save", **options)
    trained = speakers_of(read(found["train"]))
    assert "people:ben" in trained and not {"people:anna", "id10005"} & trained


def test_other_folders_lend_voices_of_every_layout_under_names_of_their_own(
    corpus, tmp_path, write
):
    write(tmp_path / "words" / "yes" / "v001_nohash_0.wav")
    write(tmp_path / "words" / "no" / "v001_nohash_1.flac")
    write(tmp_path / "digits" / "recordings" / "7_theo_3.wav", rate=8000)
    write(tmp_path / "more" / "words" / "id10000" / "vidA" / "00001.wav")
    write(tmp_path / "people" / "anna" / "a first.wav")
    folders = [tmp_path / name for name in ("words", "digits", "more/words", "people")]
    found = prepare_voxceleb(corpus, tmp_path / "save", other_folders=folders, **OPTIONS)
    others = [row for row in read(found["train"]) if ":" in row["speaker"]]
    assert [(row["ID"], row["speaker"], row["session"], row["stop"]) for row in others] == [
        ("words:no/v001_nohash_1", "words:v001", "-", "1600"),
        ("words:yes/v001_nohash_0", "words:v001", "-", "1600"),
        ("digits:recordings/7_theo_3", "digits:theo", "-", "800"),
        ("words-2:id10000/vidA/00001", "words-2:id10000", "vidA", "1600"),
        ("people:anna/a first", "people:anna", "-", "1600"),
    ]
    assert not any(":" in row["speaker"] for row in read(found["valid"]))


def test_bad_recordings_are_listed_and_never_end_the_rest(corpus, tmp_path, write, caplog):
    caplog.set_level(logging.INFO)
    folder = corpus / "vox1_dev_wav/wav/id10000/vidA"
    (folder / "00003.wav").touch()
    (folder / "00004.wav").write_bytes(b"no audio at all")
    write(folder / "00005.wav", seconds=0)
    write(folder / "00006.flac", seconds=1)
    (folder / "00006.flac").write_bytes((folder / "00006.flac").read_bytes()[:-20])
    write(folder / "00001.flac")
    write(folder / "$take.wav")
    write(corpus / "loose.wav")
    (folder / "._00001.wav").touch()
    write(folder / "00007.wav")
    os.rename(folder / "00007.wav", folder / "caf\udce9.wav")
    found = prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS)
    assert len(read(found["train"]) + read(found["valid"])) == 25
    skipped = {
        row["path"].rpartition("/")[2]: row["reason"]
        for row in read(tmp_path / "save/skipped_recordings.csv")
    }
    assert skipped.keys() == {
        *("00003.wav", "00004.wav", "00005.wav", "00006.flac"),
        *("loose.wav", "caf\\udce9.wav"),
    }
    assert skipped["00003.wav"] == "empty audio file"
    assert skipped["00006.flac"] in ("truncated audio", "unreadable audio")
    assert skipped["loose.wav"] == "no speaker's folder above it"
    assert "6 of 31 recordings" in caplog.text and "1 files repeat one beside them" in caplog.text


def test_short_recordings_and_speakers_of_one_recording_train_and_are_counted(
    corpus, tmp_path, write, caplog
):
    caplog.set_level(logging.INFO)
    write(corpus / "vox1_dev_wav/wav/id10009/vidA/00001.wav", seconds=0.5)
    options = OPTIONS | {"crop_seconds": 0.3, "valid_speakers": 6}
    with pytest.raises(ValueError, match="leaves 1 of 7 speakers for training"):
        prepare_voxceleb(corpus, tmp_path / "save", **options)
    found = prepare_voxceleb(corpus, tmp_path / "save", **options | {"valid_speakers": 5})
    assert "id10009" in speakers_of(read(found["train"]))
    assert "train: 4 recordings are shorter than 0.3 s" in caplog.text
    assert "train: 1 speakers have one recording" in caplog.text


def test_a_classification_takes_the_most_frequent_speakers_and_splits_their_utterances(
    corpus, tmp_path, write
):
    for index in range(6):
        write(corpus / f"vox1_dev_wav/wav/id10003/vidC/0001{index}.wav")
    options = {"split": "utterance", "n_speakers": 3, "n_utterances": 14, "valid_fraction": 0.3}
    found = prepare_voxceleb(corpus, tmp_path / "save", seed=1, **options)
    train, valid = read(found["train"]), read(found["valid"])
    assert len(train) == 10 and len(valid) == 4
    assert speakers_of(train) == {"id10000", "id10001", "id10003"} == speakers_of(valid)
    both = [row["speaker"] for row in train + valid]
    assert [both.count(one) for one in ("id10000", "id10001", "id10003")] == [4, 4, 6]
    assert not {row["ID"] for row in train} & {row["ID"] for row in valid}
    trials = read_trials(found["valid_trials"], corpus)
    assert trials.labels.sum() >= 3
    with pytest.raises(ValueError, match="n_speakers must be 2 to 6"):
        prepare_voxceleb(corpus, tmp_path / "save", split="utterance")


def test_trials_of_a_classification_name_the_right_one_of_two_folders(corpus, tmp_path, write):
    other = tmp_path / "other"
    for index in range(9):
        write(other / f"vox1_dev_wav/wav/id10000/vidA/0000{index}.wav")
    options = {"split": "utterance", "n_speakers": 2, "n_utterances": None, "valid_fraction": 0.5}
    found = prepare_voxceleb(corpus, tmp_path / "save", other_folders=[other], **options)
    trials = read_trials(found["valid_trials"], [corpus, other])
    listed = {row["wav"]: row["speaker"] for row in read(found["valid"])}
    assert set(listed.values()) == {"id10000", "other:id10000"} and set(trials.paths) <= set(listed)
    for label, left, right in zip(trials.labels, trials.enrolment, trials.test, strict=True):
        one, another = (listed[trials.paths[k]] for k in (left, right))
        assert (one == another) == bool(label)


def test_the_same_options_give_the_same_files_and_a_second_run_does_nothing(corpus, tmp_path):
    (corpus / "vox1_dev_wav/wav/id10000/vidA/00003.wav").touch()
    first = prepare_voxceleb(corpus, tmp_path / "a", **OPTIONS)
    second = prepare_voxceleb(corpus, tmp_path / "b", num_workers=1, **OPTIONS)
    names = ("train", "valid", "valid_trials", "speakers")
    content = {name: first[name].read_bytes() for name in names}
    assert content == {name: second[name].read_bytes() for name in names}
    times = [first[name].stat().st_mtime_ns for name in names]
    again = prepare_voxceleb(corpus, tmp_path / "a", **OPTIONS)
    assert again == first and times == [first[name].stat().st_mtime_ns for name in names]
    third = prepare_voxceleb(corpus, tmp_path / "c", **OPTIONS | {"seed": 6})
    assert third["valid_trials"].read_bytes() != content["valid_trials"]


@pytest.mark.parametrize("kind", ["PCM_16", "FLOAT"])
def test_a_silent_recording_has_no_speaker_and_is_listed_once(corpus, tmp_path, kind):
    silent = corpus / "vox1_dev_wav/wav/id10000/vidA/00001.wav"
    soundfile.write(silent, np.zeros(8000), 16000, subtype=kind)
    found = prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS)
    listed = read(tmp_path / "save/skipped_recordings.csv")
    assert [(row["path"], row["reason"]) for row in listed] == [(str(silent), "silent audio")]
    before = found["train"].stat().st_mtime_ns
    assert prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS) == found
    assert found["train"].stat().st_mtime_ns == before, "what is silent still is not looked at"
    prepare_voxceleb(corpus, tmp_path / "headers", verify="header", **OPTIONS)
    # a file of floating-point numbers is read whole all the same
    assert (tmp_path / "headers/skipped_recordings.csv").exists() == (kind == "FLOAT")


@pytest.mark.parametrize("change", ["new file", "mended file", "option", "lost manifest", "list"])
def test_a_change_of_files_options_or_lists_is_noticed(corpus, tmp_path, write, change):
    folder = corpus / "vox1_dev_wav/wav/id10000/vidA"
    (folder / "00003.wav").touch()
    file = tmp_path / "list.txt"
    file.write_text(
        "1 id10005/vidA/00001.wav id10005/vidA/00002.wav\n0 id10005/vidA/00001.wav id10004/vidA/00001.wav\n"
    )
    options = OPTIONS | {"trials": [file]}
    found = prepare_voxceleb(corpus, tmp_path / "save", **options)
    before = found["train"].stat().st_mtime_ns
    if change == "new file":
        write(folder / "00004.wav")
    elif change == "mended file":
        (folder / "00003.wav").write_bytes((folder / "00001.wav").read_bytes())
    elif change == "option":
        options["n_valid_trials"] = 4
    elif change == "lost manifest":
        found["valid"].unlink()
    else:
        file.write_text(file.read_text() + "0 id10005/vidB/00001.wav id10004/vidA/00001.wav\n")
    prepare_voxceleb(corpus, tmp_path / "save", **options)
    assert found["train"].stat().st_mtime_ns != before and found["valid"].is_file()


def test_m4a_files_are_decoded_and_without_a_decoder_one_sentence_says_what_to_install(
    tmp_path, monkeypatch
):
    folder = tmp_path / "vox2_dev_aac" / "dev" / "aac"
    speech = 0.1 * np.random.default_rng(0).standard_normal(16000)
    for number in range(5):
        for index in (1, 2):
            path = folder / f"id0000{number}" / "vid" / f"0000{index}.m4a"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_media(path, speech, 16000, "aac")
    # one that is damaged costs itself alone, the first one too
    (folder / "id00000" / "vid" / "00001.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    found = prepare_voxceleb(tmp_path, tmp_path / "save", **OPTIONS)
    rows = read(found["train"]) + read(found["valid"])
    assert len(rows) == 9 and all(row["wav"].endswith(".m4a") for row in rows)
    (skipped,) = read(tmp_path / "save" / "skipped_recordings.csv")
    assert skipped["path"].endswith("id00000/vid/00001.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"00001.m4a and 9 more .m4a files need .*pip install av"):
        prepare_voxceleb(tmp_path, tmp_path / "other", **OPTIONS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "video"}, ValueError, "split must be speaker or utterance, not 'video'"),
        ({"valid_speakers": 1}, ValueError, "valid_speakers must be 2 or more"),
        ({"valid_speakers": 0}, ValueError, "valid_speakers must be 2 or more"),
        ({"valid_speakers": 7}, ValueError, "7 speakers .* are needed .* and 6 of 6 speakers"),
        ({"n_valid_trials": 1}, ValueError, "n_valid_trials must be 2 or more"),
        ({"crop_seconds": 0}, ValueError, "crop_seconds must be above 0"),
        ({"num_workers": 0}, ValueError, "num_workers must be 1 or more"),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
        ({"trials": "none.txt"}, FileNotFoundError, "trial list none.txt does not exist"),
        ({"other_folders": "nowhere"}, FileNotFoundError, "other_folders nowhere does not exist"),
        (
            {"split": "utterance", "n_speakers": 3, "valid_fraction": 1},
            ValueError,
            "valid_fraction",
        ),
        ({"split": "utterance", "n_speakers": 3, "n_utterances": 4}, ValueError, "n_utterances"),
    ],
)
def test_an_option_out_of_range_is_named_and_nothing_is_written(
    corpus, tmp_path, options, error, message
):
    with pytest.raises(error, match=message):
        prepare_voxceleb(corpus, tmp_path / "save", **options)
    assert not (tmp_path / "save" / "train.csv").exists()


def test_a_folder_that_is_missing_empty_or_given_twice_is_named(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="data_folder .*nowhere does not exist"):
        prepare_voxceleb(tmp_path / "nowhere", tmp_path / "save")
    with pytest.raises(FileNotFoundError, match="empty is not laid out like VoxCeleb"):
        prepare_voxceleb(tmp_path / "empty", tmp_path / "save")
    with pytest.raises(ValueError, match="lie in one another; give each once"):
        prepare_voxceleb(corpus, tmp_path / "save", other_folders=[corpus / "vox1_dev_wav"])


def test_noise_among_the_speakers_is_warned_of(corpus, tmp_path, write, caplog):
    prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS)
    assert "other names" not in caplog.text
    write(corpus / "musan" / "noise" / "free-sound" / "noise-free-sound-0000.wav")
    prepare_voxceleb(corpus, tmp_path / "save", **OPTIONS)
    assert "1 of 7 speakers in" in caplog.text and "the first is noise;" in caplog.text


def test_lists_that_hold_every_speaker_leave_one_error(corpus, tmp_path):
    file = tmp_path / "all.txt"
    lines = [
        f"{k % 2} id1000{k}/vidA/00001.wav id1000{k - 1}/vidA/00001.wav\n" for k in range(1, 6)
    ]
    file.write_text("".join(lines))
    with pytest.raises(ValueError, match="0 speakers are left .* of 6, others are in the trial"):
        prepare_voxceleb(corpus, tmp_path / "save", trials=[file])


def test_lists_of_one_name_are_called_by_their_folders_too(corpus, tmp_path):
    line = "1 id10005/vidA/00001.wav id10005/vidA/00002.wav\n0 id10005/vidA/00001.wav id10004/vidA/00001.wav\n"
    files = [tmp_path / name / "veri_test2.txt" for name in ("one", "two")]
    for file in (*files, tmp_path / "three.txt"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(line)
    options = OPTIONS | {"trials": [*files, tmp_path / "three.txt"]}
    found = prepare_voxceleb(corpus, tmp_path / "save", **options)
    assert list(found["trials"]) == ["one-veri_test2", "two-veri_test2", "three"]
    assert found == prepare_voxceleb(corpus, tmp_path / "save", **options, skip_prep=True)
    with pytest.raises(ValueError, match="would both be called one-veri_test2"):
        prepare_voxceleb(corpus, tmp_path / "save", trials=[files[0], files[0]])


@pytest.mark.data("libri_voxceleb", "wake_words", "free_spoken_digits", "librispeech_asr")
def test_real_speech_trains_147_speakers_and_never_one_of_the_trial_lists(data, tmp_path):
    root = data("libri_voxceleb")
    others = [data(name) for name in ("wake_words", "free_spoken_digits", "librispeech_asr")]
    found = prepare_voxceleb(
        root,
        tmp_path,
        other_folders=others,
        trials=[root / "veri_test2.txt"],
        valid_speakers=20,
    )
    train, valid = read(found["train"]), read(found["valid"])
    own = {row["speaker"] for row in train + valid if ":" not in row["speaker"]}
    assert len(own) == 147 and len(speakers_of(valid)) == 20
    # the trial speakers are in librispeech_asr too, under their numbers
    assert not any(name.startswith("librispeech_asr:") for name in speakers_of(train))
    with open(root / "utt_map.csv", newline="") as file:
        trial = {row["speaker"] for row in csv.DictReader(file) if row["role"] == "trial"}
    assert len(trial) == 9 and not own & trial
