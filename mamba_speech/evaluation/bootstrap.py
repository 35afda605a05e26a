"""How sure a figure of a test set is: bootstrap intervals of one system, and of the difference between two.

Sources: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004. For
few groups: Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015), section
3.2 of arXiv 1411.5279. For items in which several speakers are heard: Owen and Eckles, "Bootstrapping data arrays of
arbitrary order", Annals of Applied Statistics 6 (2012); their intervals are somewhat too wide rather than too narrow.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats

# drawn at once, so that memory stays small on large test sets
CHUNK = 500


class Interval(NamedTuple):
    """A figure with the bounds of its 95 % interval.

    ``p`` is given for differences. It is two-sided: how often two equal systems would seem to differ by this much.
    """

    estimate: float
    low: float
    high: float
    p: float | None = None


def mean_interval(values, sizes=None, groups=None, **drawing):
    """The mean of a test set's items, or the ratio of two sums over them, with its 95 % interval.

    Every resample draws as many groups as there are, with replacement, each with all its items. Without groups
    it draws items. Where several speakers are heard in an item, it draws speakers, and an item counts as often as
    the product of its speakers' draws (Owen and Eckles).

    Arguments
    ---------
    values : sequence of float
        Scores, one an item, such as its errors. Equal seeds draw equal items only where items stand in one order:
        sort them by name.
    sizes : sequence of float, optional
        Sizes, such as words. The sum of the values is divided by their sum. By default every item counts once.
    groups : sequence, optional
        Speaker of each item, or a tuple of all speakers heard in it.
    resamples : int
        Number of draws, 10,000 by default.
    seed : int
        Seed of the draws, 0 by default.
    student : bool
        Whether the quantiles are Student's, further out (Hesterberg). Means of few drawn groups spread too little. With
        these quantiles the interval holds what it says from some six groups on.
    scale : float
        Factor of the figures, 100 for per cent.

    Returns
    -------
    Interval
        Without ``p``.

    Raises
    ------
    ValueError
        If there are no items, the sizes sum to 0, another sequence has another length, an item has no speaker, or
        there are too few groups to draw from.

    Example
    -------
    >>> found = mean_interval([1, 1, 1, 0, 1, 1, 0, 1], student=True)
    >>> found.estimate, 0 < found.low < 0.5, found.high
    (0.75, True, 1.0)
    >>> mean_interval([2, 3, 1], sizes=[10, 10, 20], scale=100).estimate
    15.0
    """
    return _interval(values, sizes, groups, **drawing)._replace(p=None)


def paired_difference(first, second, sizes=None, groups=None, **drawing):
    """The second system's figure minus the first's on the same items, with its 95 % interval and p.

    Both systems share every draw. Several runs of a system are to be averaged item by item beforehand: more
    seeds are no more speech. How much seeds differ is not part of the interval.

    Arguments
    ---------
    first, second : sequence of float
        Scores of the same items in the same order.
    sizes, groups, drawing
        See :func:`mean_interval`.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If the systems have not equally many items, or as :func:`mean_interval`.

    Example
    -------
    >>> worse, better = [2 + item % 2 for item in range(50)], [1 + item % 2 for item in range(50)]
    >>> result = paired_difference(worse, better, sizes=[10] * 50, scale=100)
    >>> round(result.estimate, 1), result.p < 0.001
    (-10.0, True)
    """
    if len(first) != len(second):
        raise ValueError(
            f"the systems were not tested on the same items: {len(first)} and {len(second)}"
        )
    differences = np.subtract(second, first, dtype=float)
    return _interval(differences, sizes, groups, **drawing)


def _interval(values, sizes, groups, *, resamples=10_000, seed=0, student=False, scale=1.0):
    values = np.asarray(values, dtype=float)
    sizes = np.ones(len(values), dtype=int) if sizes is None else np.asarray(sizes)
    if not len(values):
        raise ValueError("there are no items to draw from")
    if len(sizes) != len(values) or (groups is not None and len(groups) != len(values)):
        raise ValueError(f"each of the {len(values)} items needs one size and one group")
    if not sizes.sum():
        raise ValueError("the references of the test set hold nothing to count errors by")
    estimate = float(scale * values.sum() / sizes.sum())
    crossed = groups is not None and isinstance(groups[0], tuple)
    if groups is not None and not crossed:
        _, member = np.unique(np.asarray(groups), return_inverse=True)
        values, sizes = np.bincount(member, values), np.bincount(member, sizes)
    draw = partial(_draw_crossed, groups=groups) if crossed else _draw
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, CHUNK):
        sums, totals = draw(values, sizes, min(CHUNK, resamples - start), generator)
        drawn.append(scale * sums / np.where(totals, totals, 1))
    drawn = np.concatenate(drawn)
    if not len(drawn):
        raise ValueError("there are too few speakers to draw from: draw the items instead")
    return Interval(estimate, *_bounds(drawn, len(values) if student else None))


def _draw(values, sizes, resamples, generator):
    """Sums of values and of sizes in so many draws of the rows, (resamples,) each."""
    rows = generator.integers(len(values), size=(resamples, len(values)))
    return values[rows].sum(1), sizes[rows].sum(1)


def _draw_crossed(values, sizes, resamples, generator, groups):
    """Sums of values and of sizes in draws of the speakers, (resamples,) or fewer each.

    A draw without any whole item says nothing and is left out.
    """
    missing = sum(not speakers for speakers in groups)
    if missing:
        raise ValueError(f"{missing} of {len(groups)} items have no speaker")
    names, member = np.unique(
        [name for speakers in groups for name in speakers], return_inverse=True
    )
    # (items, most speakers), filled up with one past the last speaker, who counts once in every draw
    heard = np.full((len(groups), max(map(len, groups))), len(names))
    heard[np.arange(heard.shape[1]) < np.array([[len(one)] for one in groups])] = member
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    counts = np.pad(counts, ((0, 0), (0, 1)), constant_values=1)
    weights = np.ones((resamples, len(groups)), dtype=int)
    for column in heard.T:
        weights *= counts[:, column]
    weights = weights[weights.any(1)]
    return weights @ values, weights @ sizes


def _bounds(drawn, groups=None):
    """Interval and p of drawn figures; of so many groups with the quantiles of Student's t on ``groups - 1``."""
    # the drawn figure itself counts as one more, so that p is never 0
    beyond = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    if groups is None:
        low, high = np.percentile(drawn, [2.5, 97.5])
        return float(low), float(high), min(1.0, 2 * beyond / (len(drawn) + 1))
    if groups < 2:
        raise ValueError("two groups are needed to draw from")
    wider = np.sqrt(groups / (groups - 1))
    outside = stats.norm.cdf(wider * stats.t.ppf(0.025, groups - 1))
    low, high = np.quantile(drawn, [outside, 1 - outside])
    deviations = stats.norm.isf(min(0.5, beyond / (len(drawn) + 1)))
    p = 2 * stats.t.sf(deviations / wider, groups - 1)
    return float(low), float(high), float(min(1.0, p))
