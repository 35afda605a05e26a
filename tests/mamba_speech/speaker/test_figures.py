"""Pictures of verification: drawn without a display, for systems of any quality."""

import matplotlib.image
import numpy as np
import pytest

from mamba_speech.evaluation.verification import TrialErrors
from mamba_speech.speaker.figures import _rates_at, _thinned, det_curve, score_histograms

LABELS = np.array([1, 0] * 500)


def systems():
    """Scores of a good, a poor, a perfect, a constant and an upside-down system."""
    noise = np.random.default_rng(0).normal(size=len(LABELS))
    return {
        "good": 3 * LABELS + noise,
        "poor": LABELS + noise,
        "perfect": LABELS + 0.1 * np.tanh(noise),
        "constant": np.zeros(len(LABELS)),
        "upside down": -2 * LABELS + noise,
    }


@pytest.mark.parametrize("names", [["perfect"], list(systems())])
def test_curves_and_histograms_are_drawn(tmp_path, monkeypatch, names):
    monkeypatch.delenv("DISPLAY", raising=False)
    scores = {name: systems()[name] for name in names}
    errors = {name: TrialErrors(LABELS, own) for name, own in scores.items()}
    det_curve(errors, tmp_path / "det.png")
    marked = {name: (own, errors[name].eer()[1]) for name, own in scores.items()}
    score_histograms(marked, LABELS, tmp_path / "scores.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["det.png", "scores.png"]
    for path in tmp_path.iterdir():
        picture = matplotlib.image.imread(path)
        assert picture.shape[1] > 600 and picture[..., :3].std() > 0.05


def test_the_marked_rates_are_those_of_the_threshold():
    for scores in systems().values():
        errors = TrialErrors(LABELS, scores)
        for threshold in (errors.eer()[1], errors.min_dcf(0.05)[1], -100.0, 100.0):
            rejected = scores <= threshold
            expected = rejected[LABELS == 1].mean(), (~rejected)[LABELS == 0].mean()
            assert _rates_at(errors, threshold) == pytest.approx(expected)


def test_a_long_curve_is_drawn_by_few_points_near_every_one():
    curve = np.stack([np.linspace(-3, 3, 100_000), np.linspace(3, -3, 100_000)])
    found = _thinned(curve)
    assert found.shape[1] < 7000 and (np.diff(found) ** 2).max() < 1e-5
