"""Pieces of other speech among the unknown clips: how many, whose, from where, and what is refused."""

import json

import numpy as np
import pytest
import soundfile

from data_prep.keywords.clips import OTHER_SPEECH, SILENCE, UNKNOWN
from data_prep.keywords.splits import SPLITS, which_set
from data_prep.speechcommands_prepare import prepare_speechcommands
from tests.support.keyword_manifests import read_table

# the first three train, then one for validation and one for the test by the hash rule
SPEAKERS = ["aaaa0003", "aaaa0004", "aaaa0005", "8b775397", "2aa787cf"]
TRAIN, VALID, TEST = SPEAKERS[:3], SPEAKERS[3:4], SPEAKERS[4:]
RATE = 16000


@pytest.fixture
def corpus(tmp_path, write_tone):
    """Two words, a noise, and six seconds of other speech by each speaker."""
    root = tmp_path / "corpus"
    for word in ("yes", "no"):
        for speaker in SPEAKERS:
            write_tone(root / word / f"{speaker}_nohash_0.wav", seconds=1.0)
    write_tone(root / "_background_noise_" / "hum.wav", 20.0)
    for speaker in SPEAKERS:
        write_tone(root / OTHER_SPEECH / f"{speaker}_nohash_0.wav", 6.4)
    return root


@pytest.fixture
def prepare(corpus, tmp_path):
    """A function that prepares the corpus and gives each split's rows."""

    def run(save="save", **options):
        options = {"n_classes": ["yes"], "other_speech_percentage": 200} | options
        prepared = prepare_speechcommands(corpus, tmp_path / save, **options)
        return {split: read_table(prepared[split]) for split in SPLITS}

    return run


def others(rows):
    """The rows of other speech."""
    return [row for row in rows if row["words"] == OTHER_SPEECH]


def test_pieces_are_unknown_clips_of_their_split_s_speakers_and_none_overlaps(prepare, corpus):
    for (split, rows), speakers in zip(prepare().items(), (TRAIN, VALID, TEST), strict=True):
        pieces = others(rows)
        assert len(pieces) == 2 * len(speakers)
        assert len({row["ID"] for row in rows}) == len(rows)
        spans = set()
        for row in pieces:
            assert row["label"] == UNKNOWN and row["speaker"] in speakers, split
            path = corpus / OTHER_SPEECH / f"{row['speaker']}_nohash_0.wav"
            assert row["wav"] == str(path)
            start, stop = int(row["start"]), int(row["stop"])
            assert stop - start == RATE and stop <= 6.4 * RATE and float(row["duration"]) == 1
            spans.add((row["wav"], start // RATE))
            assert start % RATE == 0
        assert len(spans) == len(pieces)


def test_the_other_clips_are_drawn_as_they_are_without(prepare):
    with_pieces, without = prepare("a"), prepare("b", other_speech_percentage=0)
    for split in SPLITS:
        assert [row for row in with_pieces[split] if row["words"] != OTHER_SPEECH] == without[split]


def test_a_folder_of_other_speech_alone_changes_nothing(prepare, corpus, tmp_path):
    prepare("a", other_speech_percentage=0)
    for path in (corpus / OTHER_SPEECH).iterdir():
        path.unlink()
    (corpus / OTHER_SPEECH).rmdir()
    prepare("b", other_speech_percentage=0)
    names = [f"{split}.csv" for split in SPLITS] + ["speechcommands_prepare.json"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_seed_draws_the_pieces(prepare):
    first, again, other = (prepare(str(k), seed=seed) for k, seed in enumerate((1, 1, 2)))
    assert first == again
    assert others(first["train"]) != others(other["train"])


def test_other_speech_goes_by_the_lists_with_its_speaker_s_words_or_by_the_hash(
    prepare, corpus, write_tone
):
    held = {"validation": SPEAKERS[0], "testing": SPEAKERS[1]}
    for name, speaker in held.items():
        lines = [f"{word}/{speaker}_nohash_0.wav\n" for word in ("yes", "no")]
        named = {"validation": SPEAKERS[2], "testing": "nobody"}[name]
        lines.append(f"{OTHER_SPEECH}/{named}_nohash_0.wav\n")
        (corpus / f"{name}_list.txt").write_text("".join(lines))
    # speakers who say no word
    strangers = ["2643992f", "ffa76c4a", "aaaa0006"]
    assert [which_set(one) for one in strangers] == ["valid", "test", "train"]
    for speaker in strangers:
        write_tone(corpus / OTHER_SPEECH / f"{speaker}_nohash_0.wav", 6.4)
    rows = prepare(split="lists", other_speech_percentage=1000, unknown_percentage=100)
    got = {split: {row["speaker"] for row in others(own)} for split, own in rows.items()}
    assert got["valid"] == {SPEAKERS[0], SPEAKERS[2], strangers[0]}
    assert got["test"] == {SPEAKERS[1], strangers[1]}
    assert got["train"] == {*SPEAKERS[3:], strangers[2]}


def test_in_a_folder_elsewhere_each_folder_of_recordings_is_one_speaker(
    prepare, tmp_path, write_tone
):
    elsewhere = tmp_path / "speech"
    for chapter in range(40):
        for number in range(2):
            write_tone(elsewhere / "train" / f"{chapter}" / f"{chapter}-{number}.flac", 1.5)
    splits = {}
    for split, rows in prepare(other_speech=elsewhere, other_speech_percentage=1000).items():
        for row in others(rows):
            splits.setdefault(row["speaker"], set()).add(split)
            assert str(elsewhere) in row["wav"]
    assert len(splits) > 20
    assert all(split == {which_set(speaker)} for speaker, split in splits.items())


def test_recordings_whose_transcript_holds_a_keyword_are_left_out(prepare, tmp_path, write_tone):
    elsewhere = tmp_path / "speech"
    for name in ("0", "1", "2"):
        write_tone(elsewhere / "7" / f"7-{name}.wav", 3.0)
    text = "7-0 SHE SAID YES TO HIM\n7-1 YESTERDAY\n"
    (elsewhere / "7" / "7.trans.txt").write_text(text)
    assert which_set("7") == "train"
    rows = prepare(other_speech=elsewhere, other_speech_percentage=1000)["train"]
    assert {row["wav"].rpartition("/")[2] for row in others(rows)} == {"7-1.wav", "7-2.wav"}


def test_nearly_silent_pieces_are_not_taken(prepare, corpus, caplog):
    random = np.random.default_rng(0)
    for speaker in SPEAKERS:
        sound = 0.1 * random.standard_normal(6 * RATE)
        sound[2 * RATE : 4 * RATE] *= 0.03
        soundfile.write(corpus / OTHER_SPEECH / f"{speaker}_nohash_0.wav", sound, RATE)
    for rows in prepare(other_speech_percentage=1000).values():
        starts = {int(row["start"]) // RATE for row in others(rows)}
        assert starts == {0, 1, 4, 5}
    assert "train: only 12 pieces of other speech, not 30" in caplog.text


def test_short_and_bad_recordings_are_skipped_counted_and_listed(prepare, corpus, tmp_path, caplog):
    folder = corpus / OTHER_SPEECH
    soundfile.write(folder / f"{TRAIN[0]}_nohash_0.wav", np.full(9000, 0.1), RATE)
    (folder / f"{TRAIN[1]}_nohash_0.wav").write_bytes(b"no audio")
    rows = prepare()["train"]
    assert {row["speaker"] for row in others(rows)} == {TRAIN[2]}
    skipped = read_table(tmp_path / "save" / "skipped_other_speech.csv")
    assert sorted(row["reason"] for row in skipped) == ["shorter than 1.0 s", "unreadable audio"]
    assert "2 of 5 recordings of other speech are left out" in caplog.text


def test_pieces_of_another_rate_are_in_the_file_s_own_samples(prepare, corpus, write_tone):
    for speaker in SPEAKERS:
        write_tone(corpus / OTHER_SPEECH / f"{speaker}_nohash_0.wav", 3.0, 44100, channels=2)
    for row in others(prepare()["train"]):
        assert int(row["stop"]) - int(row["start"]) == 44100 and row["duration"] == "1.0"


def test_a_second_run_changes_nothing_until_the_other_speech_does(prepare, corpus, tmp_path):
    manifest = tmp_path / "save" / "train.csv"

    def written(**options):
        before = manifest.stat().st_mtime_ns if manifest.exists() else 0
        prepare(**options)
        return manifest.stat().st_mtime_ns != before

    assert written()
    assert not written()
    assert written(other_speech_percentage=100)
    (corpus / OTHER_SPEECH / f"{TRAIN[0]}_nohash_0.wav").unlink()
    assert written(other_speech_percentage=100)
    assert written(other_speech_percentage=0)
    assert not written(other_speech_percentage=0)


def test_classes_are_the_same_with_other_speech(prepare, tmp_path):
    prepare()
    labels = json.loads((tmp_path / "save" / "labels.json").read_text())
    assert labels == ["yes", UNKNOWN, SILENCE]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"other_speech_percentage": -1}, ValueError, "other_speech_percentage must be between"),
        ({"n_classes": 35}, ValueError, "needs the class _unknown_"),
        ({"unknown_percentage": 0}, ValueError, "needs the class _unknown_"),
        ({"other_speech": "nowhere"}, FileNotFoundError, "other_speech .*nowhere does not exist"),
        (
            {"other_speech": "nowhere", "other_speech_percentage": 0},
            ValueError,
            "of no use while other_speech_percentage is 0",
        ),
    ],
)
def test_options_of_other_speech_that_make_no_sense_are_named(prepare, options, error, message):
    with pytest.raises(error, match=message):
        prepare(**options)


def test_without_usable_other_speech_for_training_there_is_an_error(prepare, corpus):
    for speaker in TRAIN:
        (corpus / OTHER_SPEECH / f"{speaker}_nohash_0.wav").unlink()
    with pytest.raises(ValueError, match="all recordings fall into validation and test"):
        prepare()
    for path in (corpus / OTHER_SPEECH).iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"_other_speech_ holds no recording \(.wav"):
        prepare()
    (corpus / OTHER_SPEECH).rmdir()
    with pytest.raises(FileNotFoundError, match="corpus has no _other_speech_: give a folder"):
        prepare()


def test_the_corpus_own_words_and_noise_are_no_other_speech(prepare, corpus, tmp_path):
    for folder in (corpus / "yes", corpus, corpus.parent, corpus / "_background_noise_"):
        with pytest.raises(ValueError, match=r"the keyword corpus' own recordings \(.*\): give a"):
            prepare(other_speech=folder)
    (tmp_path / "link").symlink_to(corpus / "no")
    with pytest.raises(ValueError, match="the keyword corpus' own recordings"):
        prepare(other_speech=tmp_path / "link")
    assert prepare(other_speech=corpus / OTHER_SPEECH) == prepare()


def test_other_speech_that_is_silent_all_through_is_refused_with_a_file_s_name(prepare, corpus):
    for speaker in TRAIN:
        path = corpus / OTHER_SPEECH / f"{speaker}_nohash_0.wav"
        soundfile.write(path, np.zeros(4 * RATE), RATE)
    with pytest.raises(
        ValueError, match=r"nearly silent \(12\), such as those of .*_other_speech_"
    ):
        prepare()
