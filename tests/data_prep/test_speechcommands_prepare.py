"""Keyword manifests: classes, rows, options, and each fault of a corpus answered by name."""

from collections import Counter

import pytest

from data_prep.keywords.clips import SILENCE, UNKNOWN
from data_prep.keywords.splits import SPLITS
from data_prep.keywords.words import COMMANDS, WORDS
from data_prep.speechcommands_prepare import prepare_speechcommands
from tests.support.keyword_manifests import (
    IN_VALIDATION_LIST,
    TRAINING,
    read_labels,
    read_rows,
    write_lists,
)


def test_the_versions_have_30_and_35_words_and_the_ten_commands_are_among_them():
    assert len(WORDS["0.01"]) == 30
    assert len(WORDS["0.02"]) == 35
    assert set(COMMANDS) < set(WORDS["0.01"]) < set(WORDS["0.02"])


def test_a_row_gives_clip_samples_label_speaker_and_words(prepare_words, word_corpus):
    rows = read_rows(prepare_words())
    keys = ["ID", "duration", "wav", "start", "stop", "label", "speaker", "words"]
    assert all(list(row) == keys for split in SPLITS for row in rows[split])
    (row,) = (row for row in rows["valid"] if row["label"] == "cat")
    speaker = IN_VALIDATION_LIST.split()[0]
    assert row == {
        "ID": f"cat_{speaker}_nohash_0",
        "duration": "1.0",
        "wav": str(word_corpus / "cat" / f"{speaker}_nohash_0.wav"),
        "start": "0",
        "stop": "16000",
        "label": "cat",
        "speaker": speaker,
        "words": "cat",
    }


@pytest.mark.parametrize(("version", "count"), [("0.01", 30), ("0.02", 35), (0.02, 35)])
def test_every_word_is_a_class_by_alphabet(make_word_corpus, tmp_path, version, count):
    root = make_word_corpus(WORDS["0.02"])
    prepared = prepare_speechcommands(root, tmp_path / "save", version, n_classes=count)
    assert read_labels(prepared) == WORDS[str(version)]
    for rows in read_rows(prepared).values():
        assert {row["label"] for row in rows} == set(WORDS[str(version)])
    assert [path.name for path in prepared["noise"]] == ["hum.wav"]


def test_one_class_more_is_silence(make_word_corpus, tmp_path):
    root = make_word_corpus(WORDS["0.01"])
    prepared = prepare_speechcommands(root, tmp_path / "save", "0.01", n_classes=31)
    assert read_labels(prepared) == [*WORDS["0.01"], SILENCE]
    counts = Counter(row["label"] for row in read_rows(prepared)["train"])
    assert counts[SILENCE] == 9  # a tenth of 30 words by 3 speakers


def test_twelve_classes_hold_a_tenth_of_unknown_and_of_silence_in_every_split(
    make_word_corpus, tmp_path
):
    root = make_word_corpus(WORDS["0.02"])
    prepared = prepare_speechcommands(root, tmp_path / "save", n_classes=12)
    assert read_labels(prepared) == [*COMMANDS, UNKNOWN, SILENCE]
    for split, rows in read_rows(prepared).items():
        speakers = 3 if split == "train" else 1
        counts = Counter(row["label"] for row in rows)
        assert counts == dict.fromkeys([*COMMANDS, UNKNOWN, SILENCE], speakers)
        unknown = [row["words"] for row in rows if row["label"] == UNKNOWN]
        assert not set(unknown) & set(COMMANDS)


def test_a_list_of_words_takes_the_place_of_the_commands(prepare_words):
    prepared = prepare_words(n_classes=["no", "cat"], unknown_percentage=50, silence_percentage=0)
    assert read_labels(prepared) == ["no", "cat", UNKNOWN]
    rows = read_rows(prepared)["train"]
    assert Counter(row["label"] for row in rows) == {"no": 3, "cat": 3, UNKNOWN: 3}
    assert {row["words"] for row in rows if row["label"] == UNKNOWN} == {"yes"}
    assert read_labels(prepare_words(n_classes="no, cat", silence_percentage=0)) == [
        "no",
        "cat",
        UNKNOWN,
    ]


def test_one_s_own_word_folders_are_the_classes(make_word_corpus, tmp_path):
    root = make_word_corpus(["ja", "nein"], noise_seconds=0)
    (root / "scripts").mkdir()
    (root / "scripts" / "notes.txt").write_text("no clip")
    prepared = prepare_speechcommands(root, tmp_path / "save", n_classes="all")
    assert read_labels(prepared) == ["ja", "nein"]
    assert prepared["noise"] == []


def test_the_same_seed_gives_the_same_manifests_and_another_other_silence(word_corpus, tmp_path):
    texts = []
    for index, seed in enumerate((1, 1, 2)):
        prepared = prepare_speechcommands(
            word_corpus, tmp_path / str(index), n_classes=["yes"], seed=seed
        )
        texts.append([prepared[split].read_bytes() for split in SPLITS])
    assert texts[0] == texts[1] != texts[2]


def test_a_second_run_changes_nothing_until_the_corpus_or_the_options_do(
    prepare_words, word_corpus, tmp_path
):
    manifest = tmp_path / "save" / "train.csv"

    def written(**options):
        """Whether the manifest is written anew."""
        before = manifest.stat().st_mtime_ns if manifest.exists() else 0
        prepared = prepare_words(**options)
        assert [path.name for path in prepared["noise"]] == ["hum.wav"]
        return manifest.stat().st_mtime_ns != before

    assert written()
    assert not written()
    assert written(n_classes=["yes"])
    assert written(n_classes=["yes"], seed=7)
    assert written()
    write_lists(
        word_corpus, [f"yes/{TRAINING[0]}_nohash_0.wav"], [f"no/{TRAINING[1]}_nohash_0.wav"]
    )
    assert written(split="lists")
    assert not written(split="lists")
    write_lists(
        word_corpus, [f"yes/{TRAINING[1]}_nohash_0.wav"], [f"no/{TRAINING[0]}_nohash_0.wav"]
    )
    assert written(split="lists")
    (word_corpus / "cat" / f"{TRAINING[0]}_nohash_0.wav").unlink()
    assert written(split="lists")
    manifest.unlink()
    assert written(split="lists")
    assert not list(manifest.parent.glob(".*")), "temporary files are left"


def test_skip_prep_looks_at_nothing_and_gives_what_was_found_before(prepare_words, tmp_path):
    absent = prepare_speechcommands(tmp_path / "absent", tmp_path / "none", skip_prep=True)
    assert absent["noise"] == []
    assert not (tmp_path / "none").exists()
    prepared = prepare_words()
    again = prepare_speechcommands(tmp_path / "absent", tmp_path / "save", skip_prep=True)
    assert again == prepared


def test_the_folder_above_the_archive_s_own_gives_the_same(word_corpus, tmp_path):
    (tmp_path / "above" / "SpeechCommands").mkdir(parents=True)
    moved = tmp_path / "above" / "SpeechCommands" / "speech_commands_v0.02"
    word_corpus.rename(moved)
    manifests = []
    for name, folder in (("a", tmp_path / "above"), ("b", moved)):
        prepared = prepare_speechcommands(folder, tmp_path / name, n_classes="all")
        manifests.append([prepared[split].read_bytes() for split in SPLITS])
    assert manifests[0] == manifests[1]


def test_a_missing_folder_and_a_wrong_layout_are_named(tmp_path, write_tone):
    with pytest.raises(FileNotFoundError, match=r"data_folder .*absent does not exist"):
        prepare_speechcommands(tmp_path / "absent", tmp_path / "save")
    write_tone(tmp_path / "flat" / "a.wav")
    with pytest.raises(FileNotFoundError, match="not laid out like Speech Commands"):
        prepare_speechcommands(tmp_path / "flat", tmp_path / "save")
    assert not (tmp_path / "save").exists()


def test_a_missing_and_an_empty_word_folder_are_named(prepare_words, word_corpus):
    with pytest.raises(FileNotFoundError, match=r"no folder for backward, bed, .*3 folders"):
        prepare_words(n_classes=35)
    (word_corpus / "dog").mkdir()
    for n_classes in ("all", ["dog", "yes"]):
        with pytest.raises(ValueError, match="in the word folder dog"):
            prepare_words(n_classes=n_classes)


def test_silence_without_noise_and_lists_that_are_missing_are_errors(make_word_corpus, tmp_path):
    root = make_word_corpus(["yes", "no"], noise_seconds=0)
    with pytest.raises(FileNotFoundError, match="has no _background_noise_"):
        prepare_speechcommands(root, tmp_path / "save", n_classes=["yes"])
    with pytest.raises(FileNotFoundError, match=r"no .*validation_list.txt; set split to official"):
        prepare_speechcommands(root, tmp_path / "save", n_classes="all", split="lists")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "0.03"}, "version must be one of 0.01, 0.02, not '0.03'"),
        ({"version": "0.01", "n_classes": 35}, "n_classes 35 does not fit version 0.01: choose 30"),
        ({"n_classes": 12, "silence_percentage": 0}, "n_classes 12 does not fit"),
        ({"n_classes": []}, "n_classes must list different words, not none"),
        ({"n_classes": ["yes", "yes"]}, "n_classes must list different words"),
        ({"n_classes": ["yes", "_unknown_"]}, "n_classes must list different words"),
        ({"unknown_percentage": 101}, "unknown_percentage must be between 0 and 100"),
        ({"silence_percentage": -1}, "silence_percentage must be between 0 and 100"),
        ({"clip_seconds": 0}, "clip_seconds must be above 0"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_named(prepare_words, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_words(**options)


def test_real_speech_is_prepared_whole_by_its_speaker_disjoint_lists(data, tmp_path):
    folder = data("speech_commands")
    prepared = prepare_speechcommands(
        folder, tmp_path / "save", version="0.01", n_classes=30, split="lists"
    )
    rows = read_rows(prepared)
    listed = {
        split: (folder / name).read_text(encoding="utf-8").split()
        for split, name in (("valid", "validation_list.txt"), ("test", "testing_list.txt"))
    }
    for split, clips in listed.items():
        found = {"/".join(row["wav"].split("/")[-2:]) for row in rows[split]}
        assert found == set(clips)
    assert sum(map(len, rows.values())) == len(list(folder.glob("*/*_nohash_*.wav")))
    speakers = [{row["speaker"] for row in rows[split]} for split in SPLITS]
    assert not any(speakers[a] & speakers[b] for a, b in ((0, 1), (0, 2), (1, 2)))
    assert all({row["label"] for row in rows[split]} == set(WORDS["0.01"]) for split in SPLITS)
    assert len(prepared["noise"]) == 3
    assert not list((tmp_path / "save").glob("skipped_*"))


def test_speechbrain_reads_what_was_written(prepare_words):
    dataset = pytest.importorskip("speechbrain.dataio.dataset")
    prepared = prepare_words(n_classes=["yes"])
    loaded = dataset.DynamicItemDataset.from_csv(str(prepared["test"]))
    loaded.set_output_keys(["duration", "label", "start", "stop", "words"])
    kinds = {item["label"]: item for item in (loaded[index] for index in range(len(loaded)))}
    assert kinds["yes"] == {
        "duration": 1.0,
        "label": "yes",
        "start": "0",
        "stop": "16000",
        "words": "yes",
    }
    assert kinds[SILENCE]["words"] == ""
