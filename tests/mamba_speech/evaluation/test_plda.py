"""PLDA scores against SpeechBrain's own scoring and against the Gaussian densities that they stand for."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from speechbrain.processing.PLDA_LDA import Ndx, StatObject_SB, fast_PLDA_scoring

from mamba_speech.evaluation.plda import PldaScorer
from mamba_speech.evaluation.score_normalisation import trial_products, unit_length
from mamba_speech.evaluation.verification import TrialErrors


def draw(seed, speakers, recordings, size=12):
    """Embeddings that differ between speakers in few directions only, and their speakers."""
    random = np.random.default_rng(seed)
    spread = np.where(np.arange(size) < size // 2, 1.0, 0.1)
    who = np.repeat(np.arange(speakers), recordings)
    means = random.normal(size=(speakers, size)) * spread
    return means[who] + 0.4 * random.normal(size=(len(who), size)), who


@pytest.fixture(scope="module")
def scorer():
    return PldaScorer(*draw(0, 60, 5))


def test_scores_equal_speechbrain_and_the_ratio_of_densities(scorer):
    heard, _ = draw(1, 6, 1)
    vectors = scorer._project(heard)
    rows, columns = np.arange(3), np.arange(3, 6)
    pairs = np.array([(row, column) for row in rows for column in columns])
    found = scorer.score(heard, *pairs.T).reshape(3, 3)

    def statistics(numbers):
        names, none = numbers.astype(str).astype(object), np.full(len(numbers), None)
        counts = np.ones((len(numbers), 1))
        return StatObject_SB(names, names, none, none, counts, vectors[numbers])

    first, second = statistics(rows), statistics(columns)
    pairs_of = Ndx(models=first.modelset, testsegs=second.segset)
    model = scorer.mean, scorer.factors, scorer.residual
    expected = fast_PLDA_scoring(first, second, pairs_of, *model)
    np.testing.assert_allclose(found, expected.scoremat, rtol=1e-6, atol=1e-6)

    between = scorer.factors @ scorer.factors.T
    total = between + scorer.residual
    joint = multivariate_normal(
        np.tile(scorer.mean, 2), np.block([[total, between], [between, total]])
    )
    alone = multivariate_normal(scorer.mean, total)
    ratio = joint.logpdf(np.concatenate([vectors[0], vectors[4]]))
    ratio -= alone.logpdf(vectors[0]) + alone.logpdf(vectors[4])
    assert found[0, 1] == pytest.approx(ratio, rel=1e-6)


def test_plda_learns_which_directions_tell_speakers_apart(scorer):
    heard, who = draw(2, 30, 4)
    enrolment, test = np.triu_indices(len(who), 1)
    labels = (who[enrolment] == who[test]).astype(int)
    vectors = unit_length(heard)
    cosine = TrialErrors(labels, trial_products(vectors, vectors, enrolment, test)).eer()[0]
    scores = scorer.score(heard, enrolment, test)
    assert TrialErrors(labels, scores).eer()[0] < cosine - 0.005
    np.testing.assert_allclose(scorer.score(heard, test, enrolment), scores, rtol=1e-9, atol=1e-9)


def test_fewer_recordings_than_dimensions_still_give_scores():
    heard, who = draw(3, 8, 2, size=40)
    scores = PldaScorer(heard, who).score(heard, np.array([0, 0]), np.array([1, 2]))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("embeddings", "speakers", "reason"),
    [
        (np.eye(4), [0, 1, 2, 3], "4 recordings of 4 speakers"),
        (np.eye(4), [0, 0, 1, 1], "4 recordings of 2 speakers"),
        (np.ones((6, 4)), [0, 0, 1, 1, 2, 2], "all embeddings are equal"),
    ],
)
def test_what_plda_cannot_learn_from_is_refused(embeddings, speakers, reason):
    with pytest.raises(ValueError, match=reason):
        PldaScorer(embeddings, speakers)
