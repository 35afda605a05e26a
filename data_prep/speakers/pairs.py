"""Trials for validation: pairs of recordings of one speaker, and at least as many of two.

Every speaker gets the same share of the trials, as far as there are different pairs.
"""

from itertools import combinations

import numpy as np

# A speaker with more recordings gives so many, drawn: pairs grow with their square.
MOST = 60


def draw_trials(sessions, sexes, count, seed, ratio=1):
    """Draw different pairs: half of them target trials, half impostor trials, or fewer target trials where pairs lack.

    Target trials join two sessions where a speaker has several. Half of the impostor trials join speakers of
    the same sex where the sexes are known.

    Arguments
    ---------
    sessions : dict of str to dict of (object to list of int)
        From each speaker to the sessions and on to their recordings.
    sexes : dict of str to str
        Sex of the speakers, as far as it is known.
    count : int
        Trials at most, 2 or more.
    seed : int
    ratio : int
        Impostor trials for a target trial at most, where target trials are too few for half. Few trials resolve an
        error rate coarsely.

    Returns
    -------
    trials : list of (int, int, int)
        Label, and two recordings.

    Example
    -------
    >>> draw_trials({"a": {"x": [0], "y": [1]}, "b": {"x": [2, 3]}}, {}, 4, seed=0)
    [(1, 0, 1), (1, 2, 3), (0, 1, 3), (0, 3, 0)]
    """
    random = np.random.default_rng([seed, 13])
    targets = _draw_targets(sessions, count // 2, random)
    wanted = max(len(targets), min(count - len(targets), ratio * len(targets)))
    impostors = _draw_impostors(sessions, sexes, wanted, random)
    return [(1, *pair) for pair in targets] + [(0, *pair) for pair in impostors]


def _draw_targets(sessions, count, random):
    """Pairs of one speaker, the speakers taking turns."""
    waiting = []
    for speaker in sorted(sessions):
        own = sessions[speaker]
        files = [(session, one) for session in own for one in own[session]]
        if len(files) > MOST:
            files = [files[k] for k in sorted(random.choice(len(files), MOST, replace=False))]
        several = len({session for session, _ in files}) > 1
        pairs = [
            (left, right)
            for (first, left), (second, right) in combinations(files, 2)
            if first != second or not several
        ]
        if pairs:
            waiting.append([pairs[k] for k in random.permutation(len(pairs))])
    drawn = []
    while waiting and len(drawn) < count:
        for pairs in waiting[: count - len(drawn)]:
            drawn.append(pairs.pop())
        waiting = [pairs for pairs in waiting if pairs]
    return sorted(drawn)


def _draw_impostors(sessions, sexes, count, random):
    """Pairs of different speakers, the first speakers taking turns."""
    speakers = sorted(sessions)
    if len(speakers) < 2:
        return []
    files = {
        speaker: [k for own in sessions[speaker].values() for k in own] for speaker in speakers
    }
    drawn = set()
    # draws that repeat a pair are many only where few pairs are left
    for turn in range(20 * count + 100):
        if len(drawn) >= count:
            break
        first = speakers[turn % len(speakers)]
        others = [one for one in speakers if one != first]
        same = turn // len(speakers) % 2 == 0
        sex = sexes.get(first)
        among = [one for one in others if (sexes.get(one) == sex) == same] if sex else others
        among = among or others
        second = among[random.integers(len(among))]
        left, right = (own[random.integers(len(own))] for own in (files[first], files[second]))
        if (right, left) not in drawn:
            drawn.add((left, right))
    return sorted(drawn)
