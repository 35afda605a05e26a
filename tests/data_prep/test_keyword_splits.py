"""Splits of a keyword corpus: by the hash of a speaker's name, or by lists."""

from collections import Counter

import pytest
import soundfile

from data_prep.keywords.splits import which_set
from data_prep.speechcommands_prepare import prepare_speechcommands
from tests.support.keyword_manifests import (
    IN_TESTING_LIST,
    IN_VALIDATION_LIST,
    SPEAKERS,
    TRAINING,
    read_rows,
    read_table,
    write_lists,
)


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


def test_lists_hold_out_what_they_name_and_the_rest_trains(prepare_words, word_corpus):
    one, two, three = (f"yes/{speaker}_nohash_0.wav" for speaker in TRAINING)
    write_lists(word_corpus, [one], [two, ""])
    rows = read_rows(prepare_words(split="lists"))
    assert [row["ID"] for row in rows["valid"]] == [f"yes_{TRAINING[0]}_nohash_0"]
    assert [row["ID"] for row in rows["test"]] == [f"yes_{TRAINING[1]}_nohash_0"]
    assert len(rows["train"]) == 3 * len(SPEAKERS) - 2
    write_lists(word_corpus, [one], [two], [three])
    rows = read_rows(prepare_words(split="lists"))
    assert [row["ID"] for row in rows["train"]] == [f"yes_{TRAINING[2]}_nohash_0"]


def test_clips_in_another_case_or_format_stay_in_the_split_that_lists_name(
    prepare_words, word_corpus
):
    one, two, three = (f"yes/{speaker}_nohash_0.wav" for speaker in TRAINING)
    write_lists(word_corpus, [one], [two], [three])
    (word_corpus / one).rename(word_corpus / one.replace(".wav", ".WAV"))
    samples, rate = soundfile.read(word_corpus / two)
    soundfile.write(word_corpus / two.replace(".wav", ".flac"), samples, rate)
    (word_corpus / two).unlink()
    for lists, held_in in ((("training",), 1), ((), 3 * len(SPEAKERS) - 2)):
        if not lists:
            (word_corpus / "training_list.txt").unlink()
        rows = read_rows(prepare_words(split="lists"))
        assert [row["ID"] for row in rows["valid"]] == [f"yes_{TRAINING[0]}_nohash_0"]
        assert [row["ID"] for row in rows["test"]] == [f"yes_{TRAINING[1]}_nohash_0"]
        assert len(rows["train"]) == held_in
        assert rows["valid"][0]["wav"].endswith(".WAV")
        assert rows["test"][0]["wav"].endswith(".flac")


def test_the_order_of_a_list_s_lines_changes_nothing(word_corpus, tmp_path):
    held_out = [f"{word}/{speaker}_nohash_0.wav" for word in ("yes", "no") for speaker in SPEAKERS]
    manifests = []
    for name, lines in (("a", held_out), ("b", held_out[::-1])):
        write_lists(word_corpus, lines, [f"cat/{SPEAKERS[0]}_nohash_0.wav"])
        prepared = prepare_speechcommands(
            word_corpus, tmp_path / name, n_classes="all", split="lists"
        )
        manifests.append(prepared["valid"].read_bytes())
    assert manifests[0] == manifests[1]


def test_another_folder_s_lists_are_read_and_shared_speakers_are_counted(
    prepare_words, tmp_path, caplog
):
    (tmp_path / "lists").mkdir()
    one, two = (f"yes/{speaker}_nohash_0.wav" for speaker in TRAINING[:2])
    write_lists(tmp_path / "lists", [one], [two])
    rows = read_rows(prepare_words(split=str(tmp_path / "lists")))
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
def test_each_mistake_in_a_list_is_one_clear_error(
    prepare_words, word_corpus, validation, testing, message
):
    write_lists(word_corpus, validation, testing)
    with pytest.raises(ValueError, match=message):
        prepare_words(split="lists")


def test_a_listed_clip_that_is_not_there_is_skipped_and_listed(
    prepare_words, word_corpus, tmp_path, caplog
):
    there = [f"yes/{speaker}_nohash_0.wav" for speaker in TRAINING[:2]]
    write_lists(word_corpus, [there[0], "no/absent_nohash_0.wav"], there[1:])
    rows = read_rows(prepare_words(split="lists"))
    assert len(rows["valid"]) == 1
    (skipped,) = read_table(tmp_path / "save" / "skipped_valid.csv")
    assert (skipped["id"], skipped["reason"]) == ("no_absent_nohash_0", "audio file not found")
    assert "1 of 2 clips of the split valid are left out" in caplog.text
