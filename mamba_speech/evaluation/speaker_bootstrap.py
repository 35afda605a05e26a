"""How sure a mean over recordings is in which several speakers are heard: a bootstrap over the speakers.

Two mixtures with one speaker in common are not independent, and mixtures cannot be told apart into groups when every
speaker stands in several. Source: Owen and Eckles, "Bootstrapping data arrays of arbitrary order", Annals of Applied
Statistics 6 (2012): speakers are drawn with replacement, and a recording counts as often as the product of its
speakers' draws. The intervals are somewhat too wide rather than too narrow.
"""

from typing import NamedTuple

import numpy as np

from mamba_speech.evaluation.bootstrap import Comparison

# drawn at once, so that memory stays small on large test sets
CHUNK = 500


class Mean(NamedTuple):
    """A mean, and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_with_interval(values, speakers=None, resamples=10_000, seed=0):
    """The mean of a score over recordings, with its 95 % interval.

    Arguments
    ---------
    values : dict of str: float
        Score by the recording's name.
    speakers : dict of str: tuple of str, optional
        Who is heard in each recording. By default nobody is heard in two of them, so that recordings are drawn.
    resamples : int
    seed : int

    Returns
    -------
    Mean

    Raises
    ------
    ValueError
        If there is no recording, or one whose speakers are not given.

    Example
    -------
    >>> mean_with_interval({"a": 1.0, "b": 3.0, "c": 2.0}).mean
    2.0
    """
    drawn = _drawn_means(values, speakers, resamples, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Mean(float(np.mean(list(values.values()))), float(low), float(high))


def paired_difference(first, second, speakers=None, resamples=10_000, seed=0):
    """The second system's mean minus the first's, on the same recordings, with its 95 % interval and p.

    Arguments
    ---------
    first, second : dict of str: float
        Score by the recording's name.
    speakers, resamples, seed
        See :func:`mean_with_interval`.

    Returns
    -------
    mamba_speech.evaluation.bootstrap.Comparison
        In the unit of the scores.

    Raises
    ------
    ValueError
        If the systems were not tested on the same recordings, or as :func:`mean_with_interval`.

    Example
    -------
    >>> first = {str(number): float(number % 3) for number in range(40)}
    >>> better = {name: score + 1 + 0.1 * (score > 1) for name, score in first.items()}
    >>> result = paired_difference(first, better)
    >>> round(result.difference, 2), result.p < 0.001
    (1.03, True)
    """
    different = first.keys() ^ second.keys()
    if different:
        raise ValueError(
            f"the systems were not tested on the same recordings: {min(different)} is in one of them only, and "
            f"{len(different) - 1} more"
        )
    differences = {name: second[name] - score for name, score in first.items()}
    drawn = _drawn_means(differences, speakers, resamples, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    # the drawn difference itself counts as one more, so that p is never 0
    beyond = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * beyond / (len(drawn) + 1))
    return Comparison(float(np.mean(list(differences.values()))), float(low), float(high), p)


def _drawn_means(values, speakers, resamples, seed):
    """Means of ``values`` in ``resamples`` draws of the speakers, (resamples,)."""
    if not values:
        raise ValueError("there is no recording to take a mean of")
    # sorted, so that the draws do not depend on the order in which recordings were tested
    names = sorted(values)
    if speakers is None:
        speakers = {name: (name,) for name in names}
    unknown = [name for name in names if not speakers.get(name)]
    if unknown:
        raise ValueError(
            f"who is heard in {unknown[0]} is not known, nor in {len(unknown) - 1} more"
        )
    index = {who: n for n, who in enumerate(sorted({w for name in names for w in speakers[name]}))}
    # (recordings, most speakers), filled up with one past the last speaker, who counts once in every draw
    most = max(len(speakers[name]) for name in names)
    heard = np.full((len(names), most), len(index))
    for row, name in enumerate(names):
        heard[row, : len(speakers[name])] = [index[who] for who in speakers[name]]
    scores = np.array([values[name] for name in names])
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        counts = generator.multinomial(len(index), np.full(len(index), 1 / len(index)), size)
        counts = np.pad(counts, ((0, 0), (0, 1)), constant_values=1)
        weights = np.ones((size, len(names)), dtype=int)
        for column in heard.T:
            weights *= counts[:, column]
        # a draw without any whole recording says nothing
        some = weights.any(1)
        drawn.append(weights[some] @ scores / weights[some].sum(1))
    drawn = np.concatenate(drawn)
    if not len(drawn):
        raise ValueError("there are too few speakers to draw from: draw the recordings instead")
    return drawn
