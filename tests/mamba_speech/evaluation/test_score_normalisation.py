"""Scores of trials and their normalisation against what is computed trial by trial."""

import numpy as np
import pytest

from mamba_speech.evaluation import score_normalisation
from mamba_speech.evaluation.score_normalisation import (
    as_norm,
    cohort_statistics,
    trial_products,
    unit_length,
)
from mamba_speech.evaluation.verification import TrialErrors


@pytest.fixture
def trials():
    """Embeddings of 30 recordings, a cohort of 50 speakers, and all pairs of recordings."""
    random = np.random.default_rng(0)
    embeddings = unit_length(random.normal(size=(30, 8)) + 0.5)
    cohort = unit_length(random.normal(size=(50, 8)))
    enrolment, test = np.triu_indices(30, 1)
    return embeddings, cohort, enrolment, test


def test_normalised_scores_are_those_of_each_trial_alone(trials):
    embeddings, cohort, enrolment, test = trials
    scores = trial_products(embeddings, embeddings, enrolment, test)
    found = as_norm(scores, cohort_statistics(embeddings, cohort, 20), enrolment, test)
    for number in (0, 100, 434):
        sides = embeddings[enrolment[number]], embeddings[test[number]]
        cosine = sides[0] @ sides[1]
        highest = [np.sort(cohort @ side)[-20:] for side in sides]
        expected = np.mean([(cosine - own.mean()) / own.std() for own in highest])
        assert found[number] == pytest.approx(expected)


def test_both_orders_of_a_trial_score_the_same_and_pieces_change_nothing(trials, monkeypatch):
    embeddings, cohort, enrolment, test = trials
    statistics = cohort_statistics(embeddings, cohort, 10)
    scores = trial_products(embeddings, embeddings, enrolment, test)
    back = trial_products(embeddings, embeddings, test, enrolment)
    np.testing.assert_array_equal(scores, back)
    np.testing.assert_array_equal(
        as_norm(scores, statistics, enrolment, test), as_norm(back, statistics, test, enrolment)
    )
    monkeypatch.setattr(score_normalisation, "TRIALS", 7)
    monkeypatch.setattr(score_normalisation, "CELLS", 3 * len(cohort))
    pieces = cohort_statistics(embeddings, cohort, 10)
    for whole, part in zip(statistics, pieces, strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-12)
    np.testing.assert_array_equal(trial_products(embeddings, embeddings, enrolment, test), scores)


def test_recordings_that_score_high_against_everybody_are_brought_in_line():
    random = np.random.default_rng(1)
    who = np.repeat(np.arange(40), 4)
    voices = random.normal(size=(40, 64))[who] + 0.8 * random.normal(size=(160, 64))
    # what all recordings share is louder in some of them
    common = random.uniform(0, 1, size=(160, 1)) * np.ones(64)
    embeddings = unit_length(voices + common)
    cohort = unit_length(random.normal(size=(200, 64)) + 0.5)
    enrolment, test = np.triu_indices(160, 1)
    labels = (who[enrolment] == who[test]).astype(int)
    scores = trial_products(embeddings, embeddings, enrolment, test)
    normalised = as_norm(scores, cohort_statistics(embeddings, cohort, 100), enrolment, test)
    before, after = (TrialErrors(labels, one).eer()[0] for one in (scores, normalised))
    assert after < before / 2


def test_a_small_cohort_counts_whole(trials):
    embeddings, cohort, *_ = trials
    whole = cohort_statistics(embeddings, cohort, len(cohort))
    for one, other in zip(cohort_statistics(embeddings, cohort), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_normalise_is_refused(trials):
    embeddings, cohort, *_ = trials
    with pytest.raises(ValueError, match="two speakers or more"):
        cohort_statistics(embeddings, cohort[:1])
    with pytest.raises(ValueError, match="two scores"):
        cohort_statistics(embeddings, cohort, top=1)
    with pytest.raises(ValueError, match="one and the same embedding"):
        cohort_statistics(embeddings, cohort[[0, 0, 0]])
    for value in (0, np.nan, np.inf):
        broken = embeddings.copy()
        broken[4] = value
        with pytest.raises(ValueError, match="embedding 5 of 30"):
            unit_length(broken)
