"""Manifests of spoken digits: who is held out, and what is refused."""

import csv
import json

import pytest

from data_prep.free_spoken_digits_prepare import prepare_free_spoken_digits
from data_prep.keywords.splits import SPLITS
from data_prep.keywords.words import DIGITS


def read_rows(prepared):
    """Rows of each split."""
    rows = {}
    for split in SPLITS:
        with open(prepared[split], newline="", encoding="utf-8") as file:
            rows[split] = list(csv.DictReader(file))
    return rows


@pytest.fixture
def digits(tmp_path, write_tone):
    """Two digits by three speakers, indices 9 to 11."""
    for speaker in ("ann", "ben", "cy"):
        for digit in (0, 7):
            for index in (9, 10, 11):
                name = f"{digit}_{speaker}_{index}.wav"
                write_tone(tmp_path / "digits" / "recordings" / name, 0.5, sample_rate=8000)
    return tmp_path / "digits"


def test_the_test_speaker_is_in_no_other_split(digits, tmp_path):
    prepared = prepare_free_spoken_digits(digits, tmp_path / "save", "ben")
    rows = read_rows(prepared)
    assert {row["speaker"] for row in rows["test"]} == {"ben"}
    assert len(rows["test"]) == 6
    for split in ("train", "valid"):
        assert {row["speaker"] for row in rows[split]} == {"ann", "cy"}
    ids = [row["ID"] for split in SPLITS for row in rows[split]]
    assert len(ids) == len(set(ids)) == 18


def test_without_a_speaker_for_validation_every_tenth_recording_serves(digits, tmp_path):
    rows = read_rows(prepare_free_spoken_digits(digits, tmp_path / "save", "ben"))
    assert sorted(row["ID"] for row in rows["valid"]) == [
        "0_ann_10",
        "0_cy_10",
        "7_ann_10",
        "7_cy_10",
    ]
    assert len(rows["train"]) == 8


def test_a_speaker_may_be_held_out_for_validation(digits, tmp_path):
    prepared = prepare_free_spoken_digits(digits, tmp_path / "save", "ben", valid_speaker="cy")
    speakers = {
        split: {row["speaker"] for row in rows} for split, rows in read_rows(prepared).items()
    }
    assert speakers == {"train": {"ann"}, "valid": {"cy"}, "test": {"ben"}}


def test_rows_and_labels_are_those_of_a_keyword_corpus(digits, tmp_path):
    prepared = prepare_free_spoken_digits(digits / "recordings", tmp_path / "save", "ben")
    assert json.loads(prepared["labels"].read_text(encoding="utf-8")) == DIGITS
    assert prepared["noise"] == []
    (row,) = (row for row in read_rows(prepared)["test"] if row["ID"] == "7_ben_9")
    assert row == {
        "ID": "7_ben_9",
        "duration": "0.5",
        "wav": str(digits / "recordings" / "7_ben_9.wav"),
        "start": "0",
        "stop": "4000",
        "label": "seven",
        "speaker": "ben",
        "words": "seven",
    }


def test_foreign_names_and_bad_recordings_are_listed(digits, tmp_path, caplog):
    folder = digits / "recordings"
    (folder / "notes_on_ben.wav").write_bytes(b"")
    (folder / "7_ben_12.wav").write_bytes(b"not audio")
    prepared = prepare_free_spoken_digits(digits, tmp_path / "save", "ben")
    assert len(read_rows(prepared)["test"]) == 6
    assert "notes_on_ben" in (tmp_path / "save" / "skipped_names.csv").read_text()
    assert "unreadable audio" in (tmp_path / "save" / "skipped_test.csv").read_text()
    assert f"1 of 20 files of {digits} are left out" in caplog.text


def test_a_second_run_changes_nothing_until_another_speaker_is_held_out(digits, tmp_path):
    prepared = prepare_free_spoken_digits(digits, tmp_path / "save", "ben")
    before = prepared["test"].stat().st_mtime_ns
    prepare_free_spoken_digits(digits, tmp_path / "save", "ben")
    assert prepared["test"].stat().st_mtime_ns == before
    prepare_free_spoken_digits(digits, tmp_path / "save", "cy")
    assert {row["speaker"] for row in read_rows(prepared)["test"]} == {"cy"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_speaker": "dan"}, "test_speaker 'dan' is not there; choose one of ann, ben, cy"),
        ({"test_speaker": "ann", "valid_speaker": "dan"}, "valid_speaker 'dan' is not there"),
        ({"test_speaker": "ann", "valid_speaker": "ann"}, "must differ"),
        ({"test_speaker": "ann", "clip_seconds": -1}, "clip_seconds must be above 0"),
    ],
)
def test_options_that_do_not_fit_are_named(digits, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_free_spoken_digits(digits, tmp_path / "save", **options)


def test_the_only_speaker_cannot_be_held_out(tmp_path, write_tone):
    write_tone(tmp_path / "recordings" / "1_ann_0.wav")
    with pytest.raises(ValueError, match="leave some of ann for training"):
        prepare_free_spoken_digits(tmp_path, tmp_path / "save", "ann")


def test_a_missing_folder_and_a_wrong_layout_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_folder .*absent does not exist"):
        prepare_free_spoken_digits(tmp_path / "absent", tmp_path / "save", "ann")
    with pytest.raises(FileNotFoundError, match="not laid out like the Free Spoken Digit"):
        prepare_free_spoken_digits(tmp_path, tmp_path / "save", "ann")


def test_every_real_speaker_can_be_held_out(data, tmp_path):
    folder = data("free_spoken_digits")
    for speaker in ("george", "jackson", "lucas", "nicolas"):
        rows = read_rows(prepare_free_spoken_digits(folder, tmp_path / speaker, speaker))
        assert [len(rows[split]) for split in SPLITS] == [540, 60, 200]
        assert {row["speaker"] for row in rows["test"]} == {speaker}
        assert all({row["label"] for row in rows[split]} == set(DIGITS) for split in SPLITS)
        assert max(float(row["duration"]) for row in rows["train"]) <= 1.0
