"""The table of predictions of a keyword test."""

from mamba_speech.evaluation.classification import Prediction, read_predictions, write_predictions


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
