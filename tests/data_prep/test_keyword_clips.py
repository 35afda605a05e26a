"""Clips of a keyword corpus: bad ones, long ones, other sample rates, and silence cut from noise."""

import numpy as np
import pytest
import soundfile

from data_prep.keywords.clips import SILENCE, find_span
from data_prep.keywords.splits import SPLITS
from tests.support.keyword_manifests import TRAINING, read_rows, read_table


def test_silence_is_inside_the_noise_and_no_split_hears_another_s(prepare_words, word_corpus):
    options = {"n_classes": ["yes"], "silence_percentage": 100, "unknown_percentage": 0}
    spans = {}
    for seed in range(5):
        for split, rows in read_rows(prepare_words(seed=seed, **options)).items():
            for row in rows:
                if row["label"] == SILENCE:
                    span = int(row["start"]), int(row["stop"])
                    assert row["wav"] == str(word_corpus / "_background_noise_" / "hum.wav")
                    assert span[1] - span[0] == 16000
                    spans.setdefault(split, []).append(span)
    assert [len(spans[split]) for split in SPLITS] == [15, 5, 5]
    edges = [(min(one)[0], max(stop for _, stop in one)) for one in map(spans.get, SPLITS)]
    assert edges[0][1] <= edges[1][0] and edges[1][1] <= edges[2][0] and edges[2][1] <= 20 * 16000
    assert len(set(spans["train"])) == 15


def test_bad_clips_are_left_out_counted_and_listed(prepare_words, word_corpus, tmp_path, caplog):
    folder = word_corpus / "yes"
    good = (folder / f"{TRAINING[0]}_nohash_0.wav").read_bytes()
    soundfile.write(folder / f"{TRAINING[0]}_nohash_1.wav", np.zeros(0), 16000)
    (folder / f"{TRAINING[0]}_nohash_2.wav").write_bytes(b"not audio")
    (folder / f"{TRAINING[0]}_nohash_3.wav").write_bytes(b"")
    (folder / f"{TRAINING[0]}_nohash_0.flac").write_bytes(good)
    for number, value in ((4, np.nan), (5, np.inf)):
        samples = np.zeros((8000, 2))
        samples[4000, 1] = value
        soundfile.write(folder / f"{TRAINING[0]}_nohash_{number}.wav", samples, 8000, "FLOAT")
    rows = read_rows(prepare_words())
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
    prepare_words, word_corpus, write_tone, caplog
):
    caplog.set_level("INFO")
    clip = np.random.default_rng(0).standard_normal(160000) * 0.01
    clip[83200:99200] *= 20
    long = word_corpus / "yes" / f"{TRAINING[0]}_nohash_0.wav"
    soundfile.write(long, clip, 16000)
    write_tone(word_corpus / "yes" / f"{TRAINING[1]}_nohash_0.wav", seconds=0.3)
    rows = {row["ID"]: row for row in read_rows(prepare_words())["train"]}
    row = rows[f"yes_{TRAINING[0]}_nohash_0"]
    assert abs(int(row["start"]) - 83200) <= 160
    assert int(row["stop"]) - int(row["start"]) == 16000
    row = rows[f"yes_{TRAINING[1]}_nohash_0"]
    assert (row["start"], row["stop"], row["duration"]) == ("0", "4800", "0.3")
    assert "train: 9 clips, of which 1 are short" in caplog.text
    assert "train: 1 long clips are cut to their loudest 1.0 s" in caplog.text
    rows = {row["ID"]: row for row in read_rows(prepare_words(clip_seconds=None))["train"]}
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
    prepare_words, word_corpus, write_tone, caplog
):
    for speaker in TRAINING[:2]:
        write_tone(word_corpus / "cat" / f"{speaker}_nohash_0.wav", seconds=1.0, sample_rate=44100)
    rows = {row["ID"]: row for row in read_rows(prepare_words())["train"]}
    row = rows[f"cat_{TRAINING[0]}_nohash_0"]
    assert (row["stop"], row["duration"]) == ("44100", "1.0")
    assert "train: 2 clips are at 44100 Hz and to be resampled" in caplog.text


def test_bad_noise_is_listed_and_only_bad_noise_is_an_error(
    prepare_words, word_corpus, tmp_path, write_tone
):
    noise = word_corpus / "_background_noise_"
    write_tone(noise / "short.wav", 0.5)
    (noise / "broken.wav").write_bytes(b"RIFF")
    prepared = prepare_words(n_classes=["yes"])
    assert [path.name for path in prepared["noise"]] == ["hum.wav"]
    skipped = read_table(tmp_path / "save" / "skipped_noise.csv")
    assert {row["id"]: row["reason"] for row in skipped} == {
        "broken": "unreadable audio",
        "short": "shorter than 1.0 s",
    }
    (noise / "hum.wav").unlink()
    with pytest.raises(ValueError, match="no noise recording is usable for _silence_"):
        prepare_words(n_classes=["yes"])
