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


def figure_intervals(figures, items, groups=None, *, resamples=10_000, seed=0, student=False):
    """Figures that are no mean of a test set's items, such as equal error rates, with their 95 % intervals.

    It draws as :func:`mean_interval` does. All figures share every draw. So the difference of two systems may be one of
    them, for which ``p`` is meant. A draw in which a figure has no value is left out.

    Arguments
    ---------
    figures : callable
        From an array of int, how often each item counts (items,), to a sequence of figures, or to None where they have
        no value. From None, to the figures of the whole test set.
    items : int
        Number of items.
    groups, resamples, seed, student
        See :func:`mean_interval`. An item whose tuple names one speaker twice counts as often as the square of this
        speaker's draws, which widens the interval somewhat.

    Returns
    -------
    list of Interval
        One a figure.

    Raises
    ------
    ValueError
        As :func:`mean_interval`.

    Example
    -------
    >>> values = np.array([3.0, 4.0, 5.0, 4.0] * 5)
    >>> found = figure_intervals(lambda weights: [np.average(values, weights=weights)], 20)[0]
    >>> found.estimate, 3 < found.low < 4 < found.high < 5
    (4.0, True)
    """
    if not items:
        raise ValueError("there are no items to draw from")
    if groups is not None and len(groups) != items:
        raise ValueError(f"each of the {items} items needs one group")
    drawn, units = [], items
    generator = np.random.default_rng(seed)
    if groups is None:
        weights = (
            np.bincount(generator.integers(items, size=items), minlength=items)
            for _ in range(resamples)
        )
    else:
        tuples = isinstance(groups[0], tuple)
        units, heard = _members(groups if tuples else [(group,) for group in groups])
        weights = _crossed_weights(units, heard, resamples, generator)
    for one in weights:
        values = figures(one)
        if values is not None:
            drawn.append(values)
    if not drawn:
        raise ValueError("there are too few speakers to draw from: draw the items instead")
    estimates = zip(figures(None), np.array(drawn, dtype=float).T, strict=True)
    return [
        Interval(float(estimate), *_bounds(column, units if student else None))
        for estimate, column in estimates
    ]


def _members(groups):
    """Number of speakers, and the speakers of each item, (items, most speakers), filled up with one past the last."""
    missing = sum(not speakers for speakers in groups)
    if missing:
        raise ValueError(f"{missing} of {len(groups)} items have no speaker")
    names = sorted({name for speakers in groups for name in speakers})
    index = {name: number for number, name in enumerate(names)}
    heard = np.full((len(groups), max(map(len, groups))), len(names))
    heard[np.arange(heard.shape[1]) < np.array([[len(one)] for one in groups])] = [
        index[name] for speakers in groups for name in speakers
    ]
    return len(names), heard


def _counts(speakers, resamples, generator):
    """How often each speaker is drawn, (resamples, speakers + 1); one past the last counts once in every draw."""
    counts = generator.multinomial(speakers, np.full(speakers, 1 / speakers), resamples)
    return np.pad(counts, ((0, 0), (0, 1)), constant_values=1)


def _crossed_weights(speakers, heard, resamples, generator):
    """How often each item counts in each draw of the speakers, (items,) a draw."""
    columns = [np.ascontiguousarray(column) for column in heard.T]
    for start in range(0, resamples, CHUNK):
        # products of counts are small, and small numbers are gathered faster
        for counts in _counts(speakers, min(CHUNK, resamples - start), generator).astype(np.int32):
            weights = counts[columns[0]]
            for column in columns[1:]:
                weights *= counts[column]
            yield weights


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
    speakers, heard = _members(groups)
    counts = _counts(speakers, resamples, generator)
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
