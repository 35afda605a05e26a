"""Keyword manifests: classes, splits, silence, and what each fault of a corpus is answered with."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import soundfile

from data_prep.keywords.clips import SILENCE, UNKNOWN, find_span
from data_prep.keywords.splits import SPLITS, which_set
from data_prep.speechcommands_prepare import COMMANDS, WORDS, prepare_speechcommands

# Speakers of the published lists of version 0.02 that the rule must put where those lists do.
IN_VALIDATION_LIST = "8b775397 2643992f 060cd039 f5e5e8b0 dbb40d24 d57febf0 16db1582 171b56dc"
IN_TESTING_LIST = "2aa787cf ffa76c4a 24ad3ebe d7467392 5828dfa2 91223b83 f0ae7203 95ba4996"

# Names that the rule leaves for training.
TRAINING = ["aaaa0003", "aaaa0004", "aaaa0005"]
SPEAKERS = TRAINING + IN_VALIDATION_LIST.split()[:1] + IN_TESTING_LIST.split()[:1]


def read_table(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_rows(prepared):
    """Rows of each split."""
    return {split: read_table(prepared[split]) for split in SPLITS}


def read_labels(prepared):
    """The classes in the order of their numbers."""
    return json.loads(prepared["labels"].read_text(encoding="utf-8"))


@pytest.fixture
def make_corpus(tmp_path, write_tone):
    """A function that makes a corpus of words, each said once by everybody in `SPEAKERS`."""

    def make(words, noise_seconds=20.0):
        root = tmp_path / "corpus"
        for word in words:
            for speaker in SPEAKERS:
                write_tone(root / word / f"{speaker}_nohash_0.wav", seconds=1.0)
        if noise_seconds:
            write_tone(root / "_background_noise_" / "hum.wav", noise_seconds)
        return root

    return make


@pytest.fixture
def corpus(make_corpus):
    """Three words and a noise."""
    return make_corpus(["yes", "no", "cat"])


@pytest.fixture
def prepare(corpus, tmp_path):
    """A function that prepares the corpus of three words."""

    def run(**options):
        return prepare_speechcommands(corpus, tmp_path / "save", **({"n_classes": "all"} | options))

    return run


@pytest.mark.parametrize(
    ("speakers", "split"), [(IN_VALIDATION_LIST, "valid"), (IN_TESTING_LIST, "test")]
)
def test_the_hash_rule_agrees_with_the_published_lists(speakers, split):
    assert {which_set(f"cat/{one}_nohash_3.wav") for one in speakers.split()} == {split}


def test_the_hash_rule_keeps_a_speaker_together_and_gives_a_tenth_to_each_held_out_split():
    counts = Counter()
    for index in range(4000):
        name = f"{index:08x}"
        clips = {which_set(f"{word}/{name}_nohash_{index % 7}.wav") for word in ("bed", "yes")}
        assert len(clips) == 1
        counts += Counter(clips)
    assert 340 < counts["valid"] < 460
    assert 340 < counts["test"] < 460


def test_the_versions_have_30_and_35_words_and_the_ten_commands_are_among_them():
    assert len(WORDS["0.01"]) == 30
    assert len(WORDS["0.02"]) == 35
    assert set(COMMANDS) < set(WORDS["0.01"]) < set(WORDS["0.02"])


def test_a_row_gives_clip_samples_label_speaker_and_words(prepare, corpus):
    rows = read_rows(prepare())
    keys = ["ID", "duration", "wav", "start", "stop", "label", "speaker", "words"]
    assert all(list(row) == keys for split in SPLITS for row in rows[split])
    (row,) = (row for row in rows["valid"] if row["label"] == "cat")
    speaker = IN_VALIDATION_LIST.split()[0]
    assert row == {
        "ID": f"cat_{speaker}_nohash_0",
        "duration": "1.0",
        "wav": str(corpus / "cat" / f"{speaker}_nohash_0.wav"),
        "start": "0",
        "stop": "16000",
        "label": "cat",
        "speaker": speaker,
        "words": "cat",
    }


@pytest.mark.parametrize(("version", "count"), [("0.01", 30), ("0.02", 35), (0.02, 35)])
def test_every_word_is_a_class_by_alphabet(make_corpus, tmp_path, version, count):
    root = make_corpus(WORDS["0.02"])
    prepared = prepare_speechcommands(root, tmp_path / "save", version, n_classes=count)
    assert read_labels(prepared) == WORDS[str(version)]
    for rows in read_rows(prepared).values():
        assert {row["label"] for row in rows} == set(WORDS[str(version)])
    assert [path.name for path in prepared["noise"]] == ["hum.wav"]


def test_one_class_more_is_silence(make_corpus, tmp_path):
    root = make_corpus(WORDS["0.01"])
    prepared = prepare_speechcommands(root, tmp_path / "save", "0.01", n_classes=31)
    assert read_labels(prepared) == [*WORDS["0.01"], SILENCE]
    counts = Counter(row["label"] for row in read_rows(prepared)["train"])
    assert counts[SILENCE] == 9  # a tenth of 30 words by 3 speakers


def test_twelve_classes_hold_a_tenth_of_unknown_and_of_silence_in_every_split(
    make_corpus, tmp_path
):
    root = make_corpus(WORDS["0.02"])
    prepared = prepare_speechcommands(root, tmp_path / "save", n_classes=12)
    assert read_labels(prepared) == [*COMMANDS, UNKNOWN, SILENCE]
    for split, rows in read_rows(prepared).items():
        speakers = 3 if split == "train" else 1
        counts = Counter(row["label"] for row in rows)
        assert counts == dict.fromkeys([*COMMANDS, UNKNOWN, SILENCE], speakers)
        unknown = [row["words"] for row in rows if row["label"] == UNKNOWN]
        assert not set(unknown) & set(COMMANDS)


def test_a_list_of_words_takes_the_place_of_the_commands(prepare):
    prepared = prepare(n_classes=["no", "cat"], unknown_percentage=50, silence_percentage=0)
    assert read_labels(prepared) == ["no", "cat", UNKNOWN]
    rows = read_rows(prepared)["train"]
    assert Counter(row["label"] for row in rows) == {"no": 3, "cat": 3, UNKNOWN: 3}
    assert {row["words"] for row in rows if row["label"] == UNKNOWN} == {"yes"}
    assert read_labels(prepare(n_classes="no, cat", silence_percentage=0)) == ["no", "cat", UNKNOWN]


def test_one_s_own_word_folders_are_the_classes(make_corpus, tmp_path):
    root = make_corpus(["ja", "nein"], noise_seconds=0)
    (root / "scripts").mkdir()
    (root / "scripts" / "notes.txt").write_text("no clip")
    prepared = prepare_speechcommands(root, tmp_path / "save", n_classes="all")
    assert read_labels(prepared) == ["ja", "nein"]
    assert prepared["noise"] == []


def test_silence_is_inside_the_noise_and_no_split_hears_another_s(prepare, corpus):
    options = {"n_classes": ["yes"], "silence_percentage": 100, "unknown_percentage": 0}
    spans = {}
    for seed in range(5):
        for split, rows in read_rows(prepare(seed=seed, **options)).items():
            for row in rows:
                if row["label"] == SILENCE:
                    span = int(row["start"]), int(row["stop"])
                    assert row["wav"] == str(corpus / "_background_noise_" / "hum.wav")
                    assert span[1] - span[0] == 16000
                    spans.setdefault(split, []).append(span)
    assert [len(spans[split]) for split in SPLITS] == [15, 5, 5]
    edges = [(min(one)[0], max(stop for _, stop in one)) for one in map(spans.get, SPLITS)]
    assert edges[0][1] <= edges[1][0] and edges[1][1] <= edges[2][0] and edges[2][1] <= 20 * 16000
    assert len(set(spans["train"])) == 15


def test_the_same_seed_gives_the_same_manifests_and_another_other_silence(corpus, tmp_path):
    texts = []
    for index, seed in enumerate((1, 1, 2)):
        prepared = prepare_speechcommands(
            corpus, tmp_path / str(index), n_classes=["yes"], seed=seed
        )
        texts.append([prepared[split].read_bytes() for split in SPLITS])
    assert texts[0] == texts[1] != texts[2]


def write_lists(folder, validation, testing, training=None):
    """Write list files."""
    lists = {"validation": validation, "testing": testing, "training": training}
    for name, lines in lists.items():
        if lines is not None:
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{name}_list.txt").write_text(text, encoding="utf-8")


def test_lists_hold_out_what_they_name_and_the_rest_trains(prepare, corpus):
    one, two, three = (f"yes/{speaker}_nohash_0.wav" for speaker in TRAINING)
    write_lists(corpus, [one], [two, ""])
    rows = read_rows(prepare(split="lists"))
    assert [row["ID"] for row in rows["valid"]] == [f"yes_{TRAINING[0]}_nohash_0"]
    assert [row["ID"] for row in rows["test"]] == [f"yes_{TRAINING[1]}_nohash_0"]
    assert len(rows["train"]) == 3 * len(SPEAKERS) - 2
    write_lists(corpus, [one], [two], [three])
    rows = read_rows(prepare(split="lists"))
    assert [row["ID"] for row in rows["train"]] == [f"yes_{TRAINING[2]}_nohash_0"]


def test_the_order_of_a_list_s_lines_changes_nothing(corpus, tmp_path):
    held_out = [f"{word}/{speaker}_nohash_0.wav" for word in ("yes", "no") for speaker in SPEAKERS]
    manifests = []
    for name, lines in (("a", held_out), ("b", held_out[::-1])):
        write_lists(corpus, lines, [f"cat/{SPEAKERS[0]}_nohash_0.wav"])
        prepared = prepare_speechcommands(corpus, tmp_path / name, n_classes="all", split="lists")
        manifests.append(prepared["valid"].read_bytes())
    assert manifests[0] == manifests[1]


def test_another_folder_s_lists_are_read_and_shared_speakers_are_counted(prepare, tmp_path, caplog):
    (tmp_path / "lists").mkdir()
    one, two = (f"yes/{speaker}_nohash_0.wav" for speaker in TRAINING[:2])
    write_lists(tmp_path / "lists", [one], [two])
    rows = read_rows(prepare(split=str(tmp_path / "lists")))
    assert [row["speaker"] for row in rows["test"]] == [TRAINING[1]]
    assert "1 speakers of test are in another split too" in caplog.text


@pytest.mark.parametrize(
    ("validation", "testing", "message"),
    [
        (["bye/a_nohash_0.wav"], [], r"validation_list.txt, line 1: .* unknown class 'bye'"),
        (["yes"], [], "line 1: 'yes' is not of the form <word>/<file>"),
        (
            [f"yes/{TRAINING[0]}_nohash_0.wav"],
            [f"no/{TRAINING[0]}_nohash_0.wav", f"yes/{TRAINING[0]}_nohash_0.wav"],
            r"testing_list.txt, line 2: .* stands already in .*validation_list.txt, line 1",
        ),
        ([f"yes/{TRAINING[0]}_nohash_0.wav"], [], "split test has no usable clip"),
    ],
)
def test_each_mistake_in_a_list_is_one_clear_error(prepare, corpus, validation, testing, message):
    write_lists(corpus, validation, testing)
    with pytest.raises(ValueError, match=message):
        prepare(split="lists")


def test_a_listed_clip_that_is_not_there_is_skipped_and_listed(prepare, corpus, tmp_path, caplog):
    there = [f"yes/{speaker}_nohash_0.wav" for speaker in TRAINING[:2]]
    write_lists(corpus, [there[0], "no/absent_nohash_0.wav"], there[1:])
    rows = read_rows(prepare(split="lists"))
    assert len(rows["valid"]) == 1
    (skipped,) = read_table(tmp_path / "save" / "skipped_valid.csv")
    assert (skipped["id"], skipped["reason"]) == ("no_absent_nohash_0", "audio file not found")
    assert "1 of 2 clips of the split valid are left out" in caplog.text


def test_bad_clips_are_left_out_counted_and_listed(prepare, corpus, tmp_path, caplog):
    folder = corpus / "yes"
    good = (folder / f"{TRAINING[0]}_nohash_0.wav").read_bytes()
    soundfile.write(folder / f"{TRAINING[0]}_nohash_1.wav", np.zeros(0), 16000)
    (folder / f"{TRAINING[0]}_nohash_2.wav").write_bytes(b"not audio")
    (folder / f"{TRAINING[0]}_nohash_3.wav").write_bytes(b"")
    (folder / f"{TRAINING[0]}_nohash_0.flac").write_bytes(good)
    for number, value in ((4, np.nan), (5, np.inf)):
        samples = np.zeros((8000, 2))
        samples[4000, 1] = value
        soundfile.write(folder / f"{TRAINING[0]}_nohash_{number}.wav", samples, 8000, "FLOAT")
    rows = read_rows(prepare())
    assert len(rows["train"]) == 9
    skipped = read_table(tmp_path / "save" / "skipped_train.csv")
    assert {row["id"].rpartition("_")[2]: row["reason"] for row in skipped} == {
        "0": "duplicate id",
        "1": "no samples",
        "2": "unreadable audio",
        "3": "empty audio file",
        "4": "samples that are not finite numbers",
        "5": "samples that are not finite numbers",
    }
    assert "6 of 15 clips of the split train are left out" in caplog.text


def test_long_clips_give_their_loudest_second_and_short_ones_stay_whole(
    prepare, corpus, write_tone, caplog
):
    caplog.set_level("INFO")
    clip = np.random.default_rng(0).standard_normal(160000) * 0.01
    clip[83200:99200] *= 20
    long = corpus / "yes" / f"{TRAINING[0]}_nohash_0.wav"
    soundfile.write(long, clip, 16000)
    write_tone(corpus / "yes" / f"{TRAINING[1]}_nohash_0.wav", seconds=0.3)
    rows = {row["ID"]: row for row in read_rows(prepare())["train"]}
    row = rows[f"yes_{TRAINING[0]}_nohash_0"]
    assert abs(int(row["start"]) - 83200) <= 160
    assert int(row["stop"]) - int(row["start"]) == 16000
    row = rows[f"yes_{TRAINING[1]}_nohash_0"]
    assert (row["start"], row["stop"], row["duration"]) == ("0", "4800", "0.3")
    assert "train: 9 clips, of which 1 are short" in caplog.text
    assert "train: 1 long clips are cut to their loudest 1.0 s" in caplog.text
    rows = {row["ID"]: row for row in read_rows(prepare(clip_seconds=None))["train"]}
    assert rows[f"yes_{TRAINING[0]}_nohash_0"]["duration"] == "10.0"


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 16000])
@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_the_loudest_part_is_found_wherever_it_is(tmp_path, rate, place):
    frames = int(3.777 * rate)
    first = int(place * (frames - rate))
    clip = np.full(frames, 0.001)
    clip[first : first + rate] = 0.5
    soundfile.write(tmp_path / "a.wav", clip, rate)
    start, stop, found = find_span(tmp_path / "a.wav", 1.0)
    assert (stop - start, found) == (rate, rate)
    assert abs(start - first) <= rate // 100 + 1
    assert 0 <= start and stop <= frames


def test_another_sample_rate_is_counted_and_spans_are_in_its_samples(
    prepare, corpus, write_tone, caplog
):
    for speaker in TRAINING[:2]:
        write_tone(corpus / "cat" / f"{speaker}_nohash_0.wav", seconds=1.0, sample_rate=44100)
    rows = {row["ID"]: row for row in read_rows(prepare())["train"]}
    row = rows[f"cat_{TRAINING[0]}_nohash_0"]
    assert (row["stop"], row["duration"]) == ("44100", "1.0")
    assert "train: 2 clips are at 44100 Hz and to be resampled" in caplog.text


def test_bad_noise_is_listed_and_only_bad_noise_is_an_error(prepare, corpus, tmp_path, write_tone):
    noise = corpus / "_background_noise_"
    write_tone(noise / "short.wav", 0.5)
    (noise / "broken.wav").write_bytes(b"RIFF")
    prepared = prepare(n_classes=["yes"])
    assert [path.name for path in prepared["noise"]] == ["hum.wav"]
    skipped = read_table(tmp_path / "save" / "skipped_noise.csv")
    assert {row["id"]: row["reason"] for row in skipped} == {
        "broken": "unreadable audio",
        "short": "shorter than 1.0 s",
    }
    (noise / "hum.wav").unlink()
    with pytest.raises(ValueError, match="no noise recording is usable for _silence_"):
        prepare(n_classes=["yes"])


def test_a_second_run_changes_nothing_until_the_corpus_or_the_options_do(prepare, corpus, tmp_path):
    manifest = tmp_path / "save" / "train.csv"

    def written(**options):
        """Whether the manifest is written anew."""
        before = manifest.stat().st_mtime_ns if manifest.exists() else 0
        prepared = prepare(**options)
        assert [path.name for path in prepared["noise"]] == ["hum.wav"]
        return manifest.stat().st_mtime_ns != before

    assert written()
    assert not written()
    assert written(n_classes=["yes"])
    assert written(n_classes=["yes"], seed=7)
    assert written()
    write_lists(corpus, [f"yes/{TRAINING[0]}_nohash_0.wav"], [f"no/{TRAINING[1]}_nohash_0.wav"])
    assert written(split="lists")
    assert not written(split="lists")
    write_lists(corpus, [f"yes/{TRAINING[1]}_nohash_0.wav"], [f"no/{TRAINING[0]}_nohash_0.wav"])
    assert written(split="lists")
    (corpus / "cat" / f"{TRAINING[0]}_nohash_0.wav").unlink()
    assert written(split="lists")
    manifest.unlink()
    assert written(split="lists")
    assert not list(manifest.parent.glob(".*")), "temporary files are left"


def test_skip_prep_looks_at_nothing_and_gives_what_was_found_before(prepare, tmp_path):
    absent = prepare_speechcommands(tmp_path / "absent", tmp_path / "none", skip_prep=True)
    assert absent["noise"] == []
    assert not (tmp_path / "none").exists()
    prepared = prepare()
    again = prepare_speechcommands(tmp_path / "absent", tmp_path / "save", skip_prep=True)
    assert again == prepared


def test_the_folder_above_the_archive_s_own_gives_the_same(corpus, tmp_path):
    (tmp_path / "above" / "SpeechCommands").mkdir(parents=True)
    moved = tmp_path / "above" / "SpeechCommands" / "speech_commands_v0.02"
    corpus.rename(moved)
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


def test_a_missing_and_an_empty_word_folder_are_named(prepare, corpus):
    with pytest.raises(FileNotFoundError, match=r"no folder for backward, bed, .*3 folders"):
        prepare(n_classes=35)
    (corpus / "dog").mkdir()
    for n_classes in ("all", ["dog", "yes"]):
        with pytest.raises(ValueError, match="in the word folder dog"):
            prepare(n_classes=n_classes)


def test_silence_without_noise_and_lists_that_are_missing_are_errors(make_corpus, tmp_path):
    root = make_corpus(["yes", "no"], noise_seconds=0)
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
def test_options_that_do_not_fit_are_named(prepare, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(**options)


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


def test_speechbrain_reads_what_was_written(prepare):
    dataset = pytest.importorskip("speechbrain.dataio.dataset")
    prepared = prepare(n_classes=["yes"])
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
