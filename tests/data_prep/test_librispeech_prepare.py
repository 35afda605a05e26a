"""LibriSpeech manifests: which utterances enter them, which are left out, and what is refused."""

import csv
import os
import shutil

import pytest
import soundfile

from data_prep.librispeech_prepare import prepare_librispeech
from mamba_speech.text import TextPolicy
from tests.support.damage import overwrite_middle


def read_table(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def corpus(tmp_path, write_tone):
    """Two splits with one speaker each and three utterances a speaker."""
    root = tmp_path / "data" / "LibriSpeech"
    for split, speaker in (("train-clean-100", "19"), ("test-other", "367")):
        chapter = root / split / speaker / "7"
        lines = []
        for index in range(3):
            name = f"{speaker}-7-{index:04d}"
            write_tone(chapter / f"{name}.flac", seconds=0.5 + index)
            lines.append(f"{name} WORD NUMBER {index}\n")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines), encoding="utf-8")
    return tmp_path / "data"


@pytest.fixture
def chapter(corpus):
    """The chapter folder of the training speaker."""
    return corpus / "LibriSpeech" / "train-clean-100" / "19" / "7"


def test_a_manifest_gives_id_duration_audio_speaker_and_words(corpus, tmp_path):
    prepare_librispeech(corpus, tmp_path / "save", ["train-clean-100"])
    rows = read_table(tmp_path / "save" / "train-clean-100.csv")
    assert [list(row) for row in rows] == 3 * [
        ["ID", "duration", "wav", "start", "stop", "spk_id", "wrd"]
    ]
    assert [row["ID"] for row in rows] == ["19-7-0000", "19-7-0001", "19-7-0002"]
    assert [float(row["duration"]) for row in rows] == [0.5, 1.5, 2.5]
    assert {row["spk_id"] for row in rows} == {"19"}
    assert rows[1]["wrd"] == "WORD NUMBER 1"
    assert all(os.path.isabs(row["wav"]) and os.path.isfile(row["wav"]) for row in rows)


def test_the_folder_of_the_splits_and_the_one_above_give_the_same(corpus, tmp_path):
    for name, folder in (("above", corpus), ("itself", corpus / "LibriSpeech")):
        prepare_librispeech(folder, tmp_path / name, te_splits=["test-other"])
    above, itself = (tmp_path / name / "test-other.csv" for name in ("above", "itself"))
    assert above.read_bytes() == itself.read_bytes()


def test_the_merged_manifest_holds_the_named_splits_in_order(corpus, tmp_path):
    splits = ["train-clean-100", "test-other"]
    prepare_librispeech(corpus, tmp_path, splits, merge_lst=splits, merge_name="train.csv")
    merged = [row["ID"] for row in read_table(tmp_path / "train.csv")]
    assert merged == [
        row["ID"] for split in splits for row in read_table(tmp_path / f"{split}.csv")
    ]


def test_a_split_may_serve_for_training_and_for_test(corpus, tmp_path):
    prepare_librispeech(corpus, tmp_path, ["test-other"], ["test-other"], ["test-other"])
    assert len(read_table(tmp_path / "test-other.csv")) == 3
    assert not list(tmp_path.glob("skipped_*"))


def test_select_n_sentences_limits_each_split(corpus, tmp_path):
    splits = ["train-clean-100"], ["test-other"]
    prepare_librispeech(corpus, tmp_path, *splits, select_n_sentences=[1, 2])
    assert len(read_table(tmp_path / "train-clean-100.csv")) == 1
    assert len(read_table(tmp_path / "test-other.csv")) == 2
    with pytest.raises(ValueError, match="1 numbers for the 2 splits"):
        prepare_librispeech(corpus, tmp_path, *splits, select_n_sentences=[1])


def test_each_bad_utterance_is_listed_with_its_reason(
    corpus, chapter, tmp_path, caplog, write_tone
):
    good = (chapter / "19-7-0002.flac").read_bytes()
    (chapter / "19-7-0003.flac").write_bytes(good[: len(good) // 2])
    (chapter / "19-7-0004.flac").write_bytes(b"not audio")
    (chapter / "19-7-0005.flac").write_bytes(b"")
    write_tone(chapter / "19-7-0007.flac")
    write_tone(chapter / "19-7-0008.flac")
    write_tone(chapter.parent / "8" / "19-7-0000.flac")
    with open(chapter / "19-7.trans.txt", "a", encoding="utf-8") as file:
        file.write("".join(f"19-7-000{index} WORDS\n" for index in (3, 4, 5, 6)))
        file.write("19-7-0007 \n")
    (chapter.parent / "8" / "19-8.trans.txt").write_text("19-7-0000 AGAIN\n")
    prepare_librispeech(corpus, tmp_path, ["train-clean-100"])
    assert len(read_table(tmp_path / "train-clean-100.csv")) == 3
    reasons = {
        row["id"]: row["reason"] for row in read_table(tmp_path / "skipped_train-clean-100.csv")
    }
    assert reasons.pop("19-7-0003") in ("unreadable audio", "truncated audio")
    assert reasons == {
        "19-7-0000": "duplicate id",
        "19-7-0004": "unreadable audio",
        "19-7-0005": "empty audio file",
        "19-7-0006": "transcript without audio",
        "19-7-0007": "empty transcript",
        "19-7-0008": "no transcript",
    }
    assert "7 of 10 utterances of train-clean-100 are left out" in caplog.text
    assert "skipped_train-clean-100.csv" in caplog.text


def test_an_id_that_stands_in_two_splits_is_kept_once(corpus, chapter, tmp_path):
    shutil.copytree(chapter, corpus / "LibriSpeech" / "test-other" / "19" / "7")
    prepare_librispeech(corpus, tmp_path, ["train-clean-100"], te_splits=["test-other"])
    ids = [row["ID"] for path in tmp_path.glob("t*.csv") for row in read_table(path)]
    assert len(ids) == len(set(ids)) == 6


def test_a_second_run_changes_nothing_until_the_corpus_or_the_options_do(corpus, chapter, tmp_path):
    save = tmp_path / "save"
    manifest = save / "train-clean-100.csv"

    def written(**options):
        """Whether the manifest is written anew."""
        before = manifest.stat().st_mtime_ns if manifest.exists() else 0
        prepare_librispeech(corpus, save, ["train-clean-100"], **options)
        return manifest.stat().st_mtime_ns != before

    assert written()
    assert not written()
    assert written(select_n_sentences=2)
    assert not written(select_n_sentences=2)
    assert written()
    (chapter / "19-7-0002.flac").unlink()
    assert written()
    assert not written()
    manifest.unlink()
    assert written()
    assert not written(verify="header"), "a full reading serves"
    (save / "librispeech_prepare.json").unlink()
    assert written(verify="header") and written(verify="full")
    assert not list(save.glob(".*")), "temporary files are left"


def test_what_was_left_out_is_looked_at_again_once_it_is_mended(corpus, chapter, tmp_path):
    recording = chapter / "19-7-0001.flac"
    sound = recording.read_bytes()
    overwrite_middle(recording)
    ids = ["19-7-0000", "19-7-0002"]
    for verify, found in (("header", [*ids, "19-7-0001"]), ("full", ids), ("full", ids)):
        prepare_librispeech(corpus, tmp_path, ["train-clean-100"], verify=verify)
        rows = read_table(tmp_path / "train-clean-100.csv")
        assert sorted(row["ID"] for row in rows) == sorted(found), verify
    skipped = read_table(tmp_path / "skipped_train-clean-100.csv")
    assert [(row["id"], row["reason"]) for row in skipped] == [("19-7-0001", "unreadable audio")]
    # in its place, which leaves the folder's time as it was
    recording.write_bytes(sound)
    prepare_librispeech(corpus, tmp_path, ["train-clean-100"])
    assert len(read_table(tmp_path / "train-clean-100.csv")) == 3


def test_a_split_of_damaged_recordings_alone_is_one_error(corpus, chapter, tmp_path):
    for recording in chapter.glob("*.flac"):
        overwrite_middle(recording)
    with pytest.raises(ValueError, match="no usable utterance; see .*skipped_train-clean-100.csv"):
        prepare_librispeech(corpus, tmp_path, ["train-clean-100"])


def test_skip_prep_looks_at_nothing(tmp_path):
    prepare_librispeech(tmp_path / "absent", tmp_path / "save", ["any"], skip_prep=True)
    assert not (tmp_path / "save").exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_folder .*absent does not exist"):
        prepare_librispeech(tmp_path / "absent", tmp_path / "save", ["train-clean-100"])


def test_a_folder_that_is_not_librispeech_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="not laid out like LibriSpeech"):
        prepare_librispeech(tmp_path / "empty", tmp_path / "save", ["train-clean-100"])


def test_an_absent_split_is_named_beside_those_that_are_there(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no split dev-clean; .*test-other, train-clean"):
        prepare_librispeech(corpus, tmp_path, ["train-clean-100"], ["dev-clean"])


def test_a_split_without_a_usable_utterance_is_an_error(corpus, chapter, tmp_path):
    for path in chapter.glob("*.flac"):
        path.write_bytes(b"not audio")
    with pytest.raises(ValueError, match=r"train-clean-100.*no usable utterance.*skipped_train"):
        prepare_librispeech(corpus, tmp_path, ["train-clean-100"])
    assert len(read_table(tmp_path / "skipped_train-clean-100.csv")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one split"),
        ({"te_splits": ["test-other"], "merge_name": "train.csv"}, "merge_lst"),
        (
            {"tr_splits": ["test-other"], "merge_lst": ["dev-clean"], "merge_name": "train.csv"},
            "merge_lst must name .*dev-clean",
        ),
        ({"tr_splits": ["test-other"], "merge_name": "test-other.csv"}, "test-other.csv' is taken"),
        ({"tr_splits": ["test-other"], "select_n_sentences": 0}, "must be 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_named(corpus, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_librispeech(corpus, tmp_path / "save", **options)


def test_real_speech_is_prepared_whole(data, tmp_path):
    folder = data("librispeech_asr")
    splits = ["train-clean-100"], ["test-clean"], ["test-other"]
    prepare_librispeech(folder, tmp_path, *splits, merge_name="train.csv")
    rows = [row for (split,) in splits for row in read_table(tmp_path / f"{split}.csv")]
    assert len(rows) == len(list(folder.rglob("*.flac")))
    assert not list(tmp_path.glob("skipped_*"))
    assert read_table(tmp_path / "train.csv") == read_table(tmp_path / "train-clean-100.csv")
    for row in rows[::50]:
        audio, sample_rate = soundfile.read(row["wav"])
        assert float(row["duration"]) == pytest.approx(len(audio) / sample_rate, abs=1e-5)
        assert row["ID"].split("-")[0] == row["spk_id"]


def test_speechbrain_reads_what_was_written(corpus, tmp_path):
    dataset = pytest.importorskip("speechbrain.dataio.dataset")
    prepare_librispeech(corpus, tmp_path, ["train-clean-100"])
    loaded = dataset.DynamicItemDataset.from_csv(str(tmp_path / "train-clean-100.csv"))
    loaded.set_output_keys(["id", "duration", "wrd"])
    assert loaded[2] == {"id": "19-7-0002", "duration": 2.5, "wrd": "WORD NUMBER 2"}


def test_texts_follow_the_policy_and_a_new_policy_prepares_anew(corpus, chapter, tmp_path):
    lines = [
        "\ufeff19-7-0000\tIT\u2019S  CAFE\u0301",
        "19-7-0001 A\u2028B 5",
        "19-7-0002 \u200b\u00ad",
    ]
    (chapter / "19-7.trans.txt").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    target = tmp_path / "train-clean-100.csv"

    def texts(**options):
        prepare_librispeech(
            corpus, tmp_path, ["train-clean-100"], policy=TextPolicy(**options) if options else None
        )
        return [row["wrd"] for row in read_table(target)]

    assert texts() == ["IT'S CAF\u00c9", "A B 5"]
    skipped = read_table(tmp_path / "skipped_train-clean-100.csv")
    assert [(row["id"], row["reason"]) for row in skipped] == [("19-7-0002", "empty transcript")]
    before = target.stat().st_mtime_ns
    assert texts() and target.stat().st_mtime_ns == before
    assert texts(case="lower", digits="skip") == ["it's caf\u00e9"]
    changes = read_table(tmp_path / "text_changes_train-clean-100.csv")
    assert [(row["change"], row["texts"], row["first"]) for row in changes] == [
        (kind, "1", "19-7-0000") for kind in ("composed", "case", "apostrophes", "spaces")
    ]
    skipped = read_table(tmp_path / "skipped_train-clean-100.csv")
    assert "--text_digits skip" in skipped[0]["reason"]
