"""The files of a recognition test."""

from speechbrain.utils.metric_stats import ErrorRateStats

from mamba_speech.evaluation.wer import read_errors, write_alignments, write_errors


def test_errors_of_speechbrains_alignments_come_back_from_the_table(tmp_path):
    stats = ErrorRateStats()
    heard = [["one", "too", "three", "four"], []]
    stats.append(["a,b", "c"], heard, [["one", "two", "three"], ["four"]])
    write_errors(tmp_path / "errors.csv", stats.scores)
    assert read_errors(tmp_path / "errors.csv") == {"a,b": (3, 2), "c": (1, 1)}
    assert [path.name for path in tmp_path.iterdir()] == ["errors.csv"]


def test_alignments_show_the_rate_and_every_word(tmp_path):
    stats = ErrorRateStats()
    stats.append(["a"], [["one", "too"]], [["one", "two"]])
    write_alignments(tmp_path / "wer.txt", stats)
    text = (tmp_path / "wer.txt").read_text()
    assert text.startswith("%WER 50.00") and "too" in text and "two" in text
