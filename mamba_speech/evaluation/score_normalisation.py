"""Scores of trials from embeddings, and their adaptive symmetric normalisation with a cohort of other speakers.

A recording that scores high against everybody gets lower scores, so that one threshold suits all recordings.

Sources: Cumani et al., "Comparison of speaker recognition approaches for real applications", Interspeech 2011;
Matejka et al., "Analysis of score normalization in multilingual speaker recognition", Interspeech 2017.
"""

from typing import NamedTuple

import numpy as np

# trials, and recordings times cohort speakers, that are worked on at once
TRIALS, CELLS = 1 << 15, 1 << 23


class CohortStatistics(NamedTuple):
    """Mean and standard deviation of each recording's highest scores against a cohort, (recordings,) each."""

    mean: np.ndarray
    deviation: np.ndarray


def unit_length(embeddings):
    """Embeddings of length 1 in float64, (recordings, size).

    Raises
    ------
    ValueError
        If one is zero or not finite.

    Example
    -------
    >>> unit_length(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    broken = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(broken):
        raise ValueError(f"embedding {broken[0] + 1} of {len(lengths)} is zero or not finite")
    return embeddings / lengths


def trial_products(first, second, enrolment, test):
    """Inner product of the two embeddings of each trial, some trials at a time.

    Arguments
    ---------
    first, second : array of float
        (recordings, size) of the enrolment and of the test side. With :func:`unit_length` it gives cosines.
    enrolment, test : array of int
        (trials,) rows of the two.

    Returns
    -------
    array of float
        (trials,).

    Example
    -------
    >>> embeddings = np.eye(2)
    >>> trial_products(embeddings, embeddings, np.array([0, 0]), np.array([0, 1])).tolist()
    [1.0, 0.0]
    """
    scores = np.empty(len(enrolment))
    for start in range(0, len(enrolment), TRIALS):
        some = slice(start, start + TRIALS)
        scores[some] = np.einsum("ij,ij->i", first[enrolment[some]], second[test[some]])
    return scores


def cohort_statistics(embeddings, cohort, top=300):
    """Mean and deviation of each recording's highest scores against a cohort, some recordings at a time.

    Arguments
    ---------
    embeddings : array of float
        (recordings, size), of length 1.
    cohort : array of float
        (speakers, size), of length 1: usually the mean embedding of each training speaker.
    top : int
        Number of scores that count; all where the cohort is smaller.

    Returns
    -------
    CohortStatistics

    Raises
    ------
    ValueError
        If fewer than two scores count, or they are all equal.

    Example
    -------
    >>> found = cohort_statistics(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), top=2)
    >>> found.mean.tolist(), found.deviation.round(6).tolist()
    ([0.8], [0.2])
    """
    top = min(top, len(cohort))
    if top < 2:
        raise ValueError(
            f"the cohort needs two speakers or more, and two scores to count; it has {len(cohort)}"
        )
    means, deviations = np.empty((2, len(embeddings)))
    step = max(1, CELLS // len(cohort))
    for start in range(0, len(embeddings), step):
        some = slice(start, start + step)
        scores = embeddings[some] @ cohort.T
        highest = np.partition(scores, len(cohort) - top, axis=1)[:, len(cohort) - top :]
        means[some], deviations[some] = highest.mean(axis=1), highest.std(axis=1)
    # what rounding leaves of equal scores is no deviation
    if (deviations < 1e-9).any():
        raise ValueError("the cohort's speakers have one and the same embedding")
    return CohortStatistics(means, deviations)


def as_norm(scores, statistics, enrolment, test):
    """Scores after adaptive symmetric normalisation.

    Arguments
    ---------
    scores : array of float
        (trials,) cosines.
    statistics : CohortStatistics
        Of all recordings.
    enrolment, test : array of int
        (trials,) places of the two recordings in the statistics.

    Returns
    -------
    array of float
        (trials,), in standard deviations above the cohort's scores. The sides may change places.

    Example
    -------
    >>> found = CohortStatistics(np.array([0.2, 0.4]), np.array([0.1, 0.2]))
    >>> as_norm(np.array([0.6]), found, np.array([0]), np.array([1])).round(6).tolist()
    [2.5]
    """
    return 0.5 * sum(
        (scores - statistics.mean[side]) / statistics.deviation[side] for side in (enrolment, test)
    )
