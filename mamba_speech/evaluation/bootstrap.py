"""Whether one system is better than another: a paired bootstrap over the utterances of a test set.

Sources: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004; for
few speakers, Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015), section
3.2 of arXiv 1411.5279.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

# drawn at once, so that memory stays small on large test sets
CHUNK = 500


class Comparison(NamedTuple):
    """The second system's word error rate minus the first's, in points of per cent.

    ``low`` and ``high`` bound its 95 % interval. ``p`` is two-sided: how often two systems of equal error rates
    would seem to differ by this much.
    """

    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(first, second, resamples=10_000, seed=0, group=None):
    """Compare two systems on the same test set by drawing its utterances again and again.

    Every resample draws as many utterances as there are, with replacement, the same for both systems and for all
    runs of each. Runs with several seeds are averaged within each resample, so that more seeds do not
    feign more speech; how much seeds differ is not part of the interval, and is to be reported beside it.

    Arguments
    ---------
    first, second : list of dict of str: UtteranceErrors
        One dictionary a run, see :func:`mamba_speech.evaluation.wer.read_errors`.
    resamples : int
    seed : int
    group : callable, optional
        From an utterance's id to what is drawn in its stead, a speaker for example: utterances of one speaker are
        not independent, and with few speakers their interval is too narrow.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If a system has no run, or the runs are not of the same utterances.

    Example
    -------
    >>> from mamba_speech.evaluation.wer import UtteranceErrors
    >>> worse = {f"utterance {i}": UtteranceErrors(10, errors=2 + i % 2) for i in range(50)}
    >>> better = {name: UtteranceErrors(10, one.errors - 1) for name, one in worse.items()}
    >>> result = paired_bootstrap([worse], [better])
    >>> round(result.difference, 1), result.p < 0.001
    (-10.0, True)
    """
    words, errors = _differences(first, second)
    if group is not None:
        _, member = np.unique([group(name) for name in sorted(first[0])], return_inverse=True)
        words, errors = np.bincount(member, words), np.bincount(member, errors)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, CHUNK):
        index = generator.integers(len(words), size=(min(CHUNK, resamples - start), len(words)))
        drawn.append(100 * errors[index].sum(1) / np.maximum(words[index].sum(1), 1))
    drawn = np.concatenate(drawn)
    low, high = np.percentile(drawn, [2.5, 97.5])
    # the drawn difference itself counts as one more, so that p is never 0
    beyond = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * beyond / (resamples + 1))
    return Comparison(float(100 * errors.sum() / words.sum()), float(low), float(high), p)


def _differences(first, second):
    """Words of each utterance, and errors of the second system minus the first's, each averaged over its runs."""
    if not (first and second):
        raise ValueError("each system needs at least one run")
    names = sorted(first[0])
    for run in (*first, *second):
        different = run.keys() ^ first[0].keys()
        different = different or {name for name in names if run[name].words != first[0][name].words}
        if different:
            raise ValueError(
                f"the systems were not tested on the same utterances: {min(different)} differs, and "
                f"{len(different) - 1} more"
            )
    words = np.array([first[0][name].words for name in names], dtype=float)
    if not words.sum():
        raise ValueError("the references of the test set hold no word")
    means = [
        np.mean([[run[name].errors for name in names] for run in runs], axis=0)
        for runs in (first, second)
    ]
    return words, means[1] - means[0]


class Estimate(NamedTuple):
    """A mean with the bounds of its 95 % interval, and the two-sided p of its being 0."""

    mean: float
    low: float
    high: float
    p: float


def grouped_mean(values, groups, resamples=10_000, seed=0):
    """The mean over items, with an interval that a resampling of their groups gives.

    Every resample draws as many groups as there are, with replacement, each with all its items. The quantiles are
    moved outwards as a t interval's are, since the spread of few drawn groups is too small; the interval then
    covers what it says from some six groups on, and with fewer is about the range of the groups' means.

    Arguments
    ---------
    values : sequence of float
    groups : sequence
        Of each item; speakers, for example, or something of its own for each to draw items.
    resamples : int
    seed : int

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If there are not two groups, or not as many groups as values.

    Example
    -------
    >>> right = [1, 1, 1, 0, 1, 1, 0, 1]
    >>> found = grouped_mean(right, range(8))
    >>> found.mean, 0 < found.low < 0.5, found.high
    (0.75, True, 1.0)
    """
    values = np.asarray(values, dtype=float)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(member) != len(values) or len(names) < 2:
        raise ValueError(f"{len(names)} group(s) of {len(values)} values: two groups are needed")
    sums, sizes = np.bincount(member, values), np.bincount(member)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, CHUNK):
        index = generator.integers(len(names), size=(min(CHUNK, resamples - start), len(names)))
        drawn.append(sums[index].sum(1) / sizes[index].sum(1))
    drawn = np.concatenate(drawn)
    return Estimate(float(values.mean()), *_expanded(drawn, len(names)))


def _expanded(drawn, groups):
    """Interval and p of resampled means, with the quantiles of Student's t on ``groups - 1`` degrees of freedom."""
    wider = np.sqrt(groups / (groups - 1))
    outside = stats.norm.cdf(wider * stats.t.ppf(0.025, groups - 1))
    low, high = np.quantile(drawn, [outside, 1 - outside])
    # the mean itself counts as one more, so that p is never 0
    beyond = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    deviations = stats.norm.isf(min(0.5, beyond / (len(drawn) + 1)))
    p = 2 * stats.t.sf(deviations / wider, groups - 1)
    return float(low), float(high), float(min(1.0, p))
