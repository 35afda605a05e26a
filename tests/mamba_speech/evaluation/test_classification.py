"""Figures of a keyword test, and its table of predictions."""

import pytest
import torch

from mamba_speech.evaluation.classification import (
    ConfusionMatrix,
    Prediction,
    read_predictions,
    wilson_interval,
    write_per_voice,
    write_predictions,
)


def test_predictions_come_back_and_stand_with_the_surest_mistake_first(tmp_path):
    path = tmp_path / "predictions.csv"
    clips = [
        Prediction("b", "b.wav", "ann", "yes", "yes", 0.9),
        Prediction("a", "a,1.wav", "bob", "yes", "no", 0.4),
        Prediction("d", "d.wav", "ann", "no", "yes", 0.75),
        Prediction("c", "c.wav", "bob", "no", "no", 0.6),
    ]
    write_predictions(path, clips)
    found = read_predictions(path)
    assert list(found) == ["d", "a", "b", "c"] and sorted(found.values()) == sorted(clips)
    assert [one.correct for one in found.values()] == [False, False, True, True]
    assert [item.name for item in tmp_path.iterdir()] == ["predictions.csv"]


def test_the_interval_of_a_proportion_is_wilsons():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for right, total, ends in [(81, 263, (0.2553, 0.3662)), (0, 20, (0.0, 0.1611))]:
        assert wilson_interval(right, total) == pytest.approx(ends, abs=5e-5)
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(0, 0)


def test_scores_agree_with_their_definitions_counted_one_by_one():
    said, heard = torch.randint(0, 4, (200,)), torch.randint(0, 4, (200,))
    matrix = ConfusionMatrix("abcd")
    for part in range(0, 200, 50):
        matrix.add(said[part : part + 50], heard[part : part + 50])
    figures = matrix.figures()
    assert figures["accuracy"] == pytest.approx(100 * float((said == heard).float().mean()))
    f1 = []
    for index in range(4):
        hits = int(((said == index) & (heard == index)).sum())
        precision, recall = hits / int((heard == index).sum()), hits / int((said == index).sum())
        f1.append(100 * 2 * precision * recall / (precision + recall))
    assert figures["macro_F1"] == pytest.approx(sum(f1) / 4)


def test_the_accuracy_of_words_counts_a_word_taken_for_none_as_a_mistake():
    matrix = ConfusionMatrix(["no", "yes", "_unknown_"])
    assert matrix.word_figures() == {} and ConfusionMatrix("ab").word_figures() == {}
    matrix.add(torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 2, 1, 0, 2, 0]))
    figures = matrix.word_figures()
    assert (figures["word_accuracy"], figures["word_clips"]) == (50, 4)
    low, high = (figures[f"word_accuracy_{end}"] / 100 for end in ("low", "high"))
    assert (low, high) == wilson_interval(2, 4)


def test_voices_stand_in_a_table_the_hardest_first_and_by_their_words_alone(tmp_path):
    heard = [
        ("bob", "no", "no"),
        ("bob", "yes", "no"),
        ("ann", "no", "no"),
        ("ann", "_silence_", "no"),
    ]
    clips = [
        Prediction(str(number), "", voice, said, taken, 0.5)
        for number, (voice, said, taken) in enumerate(heard)
    ]
    write_per_voice(tmp_path / "voices.csv", clips)
    rows = [line.split(",")[:4] for line in (tmp_path / "voices.csv").read_text().split()]
    assert rows[1:] == [["bob", "2", "1", "50.0"], ["ann", "1", "1", "100.0"]]
