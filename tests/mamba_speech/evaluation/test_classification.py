"""Figures of a keyword test, and its table of predictions."""

import pytest
import torch

from mamba_speech.evaluation.classification import (
    ConfusionMatrix,
    Prediction,
    read_predictions,
    wilson_interval,
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
