"""The files of a recognition test."""

import re

from speechbrain.utils.metric_stats import ErrorRateStats

from mamba_speech.evaluation.wer import read_errors, write_alignments, write_errors


def test_errors_of_speechbrains_alignments_come_back_from_the_table(tmp_path):
    stats = ErrorRateStats()
    heard = [["one", "too", "three", "four"], []]
    stats.append(["a,b", "c"], heard, [["one", "two", "three"], ["four"]])
    write_errors(tmp_path / "errors.csv", stats.scores)
    assert read_errors(tmp_path / "errors.csv") == {"a,b": (3, 2), "c": (1, 1)}
    assert [path.name for path in tmp_path.iterdir()] == ["errors.csv"]


def test_alignments_show_the_rates_and_every_word(tmp_path):
    words, characters = ErrorRateStats(), ErrorRateStats(split_tokens=True)
    for stats in (words, characters):
        stats.append(["a"], [["one", "too"]], [["one", "two"]])
    write_alignments(tmp_path / "wer.txt", words, characters)
    text = (tmp_path / "wer.txt").read_text()
    assert text.startswith("%WER 50.00") and "too" in text and "two" in text
    # what the published parser of recognition tests searches for
    found = re.search(r"WER: (\d+\.\d+)%", text), re.search(r"CER: (\d+\.\d+)%", text)
    assert [one.group(1) for one in found] == ["50.00", "14.29"]
