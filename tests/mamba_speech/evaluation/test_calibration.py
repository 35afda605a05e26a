"""Calibration of scores: the log-odds that it learns, and what quality adds to them."""

import numpy as np
import pytest

from mamba_speech.evaluation.calibration import Calibration, quality_measures
from mamba_speech.evaluation.verification import TrialErrors


def test_scores_that_are_log_odds_are_left_as_they_are():
    random = np.random.default_rng(0)
    labels = random.random(200_000) < 0.2
    # the log-likelihood ratio of two normal distributions at 1 and -1
    observed = random.normal(size=len(labels)) + np.where(labels, 1, -1)
    calibration = Calibration({"score": 5 * observed + 3}, labels.astype(int))
    odds = calibration({"score": 5 * np.array([-1.0, 0.0, 2.0]) + 3})
    np.testing.assert_allclose(odds, [-2, 0, 4], atol=0.06)


def make_trials(seed, count=20_000):
    """Scores of short recordings lie lower, whoever speaks."""
    random = np.random.default_rng(seed)
    lengths = random.uniform(0, 3, 300)
    enrolment, test = random.integers(0, 300, (2, count))
    labels = random.integers(0, 2, count)
    shorter = np.minimum(lengths[enrolment], lengths[test])
    scores = labels + 0.5 * shorter + 0.4 * random.normal(size=count)
    return labels, quality_measures(scores, {"length": lengths}, enrolment, test)


def test_quality_makes_trials_of_short_and_long_recordings_comparable():
    train, test = make_trials(1), make_trials(2)
    calibration = Calibration(train[1], train[0])
    plain = TrialErrors(test[0], test[1]["score"]).eer()[0]
    found = TrialErrors(test[0], calibration(test[1])).eer()[0]
    ideal = 0.1056  # of normal distributions at 0 and 1 with deviation 0.4
    assert plain > ideal + 0.02 and found == pytest.approx(ideal, abs=0.01)
    assert calibration.coefficients["lower length"] < 0 < calibration.coefficients["score"]


def test_the_order_of_a_trial_and_an_unvarying_measure_do_not_matter():
    quality = {"length": np.array([1.0, 2.0, 3.0])}
    one = quality_measures([0.5], quality, np.array([0]), np.array([2]))
    other = quality_measures([0.5], quality, np.array([2]), np.array([0]))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    labels, measures = make_trials(3, 500)
    more = measures | {"constant": np.ones(500)}
    with_constant, without = Calibration(more, labels), Calibration(measures, labels)
    assert with_constant.coefficients["constant"] == 0
    shifted = more | {"constant": np.full(500, 7.0)}
    np.testing.assert_allclose(with_constant(shifted), without(measures), rtol=1e-5, atol=1e-5)


def test_separable_trials_give_finite_log_odds():
    calibration = Calibration({"score": np.array([0.1, 0.2, 0.8, 0.9])}, [0, 0, 1, 1])
    low, high = calibration({"score": np.array([0.0, 1.0])})
    assert np.isfinite([low, high]).all() and low < 0 < high


def test_a_measure_that_cannot_be_learnt_from_is_refused_by_name():
    with pytest.raises(ValueError, match="calibration by length: 1 of 2 trials"):
        Calibration({"score": [0.0, 1.0], "length": [np.nan, 1.0]}, [0, 1])
    with pytest.raises(ValueError, match="calibration by score: the list has no impostor"):
        Calibration({"score": [0.0, 1.0]}, [1, 1])
