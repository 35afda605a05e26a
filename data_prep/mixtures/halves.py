"""Splitting the speakers of one mixture list into two halves, with as few mixtures lost as possible.

Where a set has no test list, half of its validation speakers can serve as test speakers. A mixture of
speakers from both halves would belong to neither, so the halves are chosen to have few such mixtures.
Source: Kernighan and Lin, "An efficient heuristic procedure for partitioning graphs", Bell System
Technical Journal 49, 1970; here the exchange of the best pair until nothing improves, from many starts.
"""

import numpy as np

RESTARTS = 200


def halve_speakers(mixtures, seed=1234):
    """Split mixtures into two lists that share no speaker.

    The halves have equally many speakers (or differ by one). Of the partitions found the one that
    loses the fewest mixtures is taken, and among those the one with the most even lists.

    Arguments
    ---------
    mixtures : list of Mixture
    seed : int
        Of the random starts.

    Returns
    -------
    first, second : list of Mixture
        In their old order; the alphabetically first speaker is in `first`.
    across : list of Mixture
        Those with speakers of both halves, which neither list can have.

    Raises
    ------
    ValueError
        If there are not enough speakers for two halves.

    Example
    -------
    >>> from data_prep.mixtures.lists import Mixture, Source
    >>> def mixture(name):
    ...     return Mixture(name, tuple(Source(speaker, (speaker,), 0.0) for speaker in name))
    >>> halves = halve_speakers([mixture(name) for name in ("ab", "cd", "ba", "bc")])
    >>> [[one.id for one in half] for half in halves]
    [['ab', 'ba'], ['cd'], ['bc']]
    """
    speakers = sorted({speaker for mixture in mixtures for speaker in mixture.speakers})
    count, together = len(speakers), len(mixtures[0].sources)
    if count < 2 * together:
        raise ValueError(
            f"{count} speakers cannot be split into two halves for mixtures of {together}"
        )
    place = {speaker: index for index, speaker in enumerate(speakers)}
    members = np.array([[place[speaker] for speaker in one.speakers] for one in mixtures])
    weights = np.zeros((count, count))
    for row in members:
        for left in row:
            weights[left, row] += 1.0
    np.fill_diagonal(weights, 0.0)
    random = np.random.default_rng(seed)
    best = None
    for _ in range(RESTARTS):
        side = np.arange(count) < count // 2
        side = exchange(weights, random.permutation(side))
        inside = side[members].all(axis=1).sum(), (~side[members]).all(axis=1).sum()
        score = (-sum(inside), abs(int(inside[0]) - int(inside[1])))
        if best is None or score < best[0]:
            best = score, side
    side = best[1] if best[1][0] else ~best[1]
    first, second, across = [], [], []
    for mixture, row in zip(mixtures, members, strict=True):
        # Which half it belongs to shows in how many of its speakers are on the first side.
        {together: first, 0: second}.get(int(side[row].sum()), across).append(mixture)
    return first, second, across


def exchange(weights, side):
    """Exchange the pair of speakers that helps most, until none does.

    Arguments
    ---------
    weights : np.ndarray
        Shape (speakers, speakers), the mixtures of each pair.
    side : np.ndarray
        Shape (speakers,), bool.

    Returns
    -------
    side : np.ndarray
        Changed so that no single exchange leaves more mixtures whole.
    """
    while True:
        to_first, to_second = weights @ side, weights @ ~side
        # What moving a speaker over would save, counted pair by pair.
        gain = np.where(side, to_second - to_first, to_first - to_second)
        first, second = np.flatnonzero(side), np.flatnonzero(~side)
        saved = gain[first][:, None] + gain[second][None] - 2 * weights[np.ix_(first, second)]
        row, column = np.unravel_index(saved.argmax(), saved.shape)
        if saved[row, column] <= 0:
            return side
        side = side.copy()
        side[[first[row], second[column]]] = False, True
