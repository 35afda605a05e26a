"""Who trains and who validates: whole speakers, or utterances of the speakers of a classification.

Every choice follows from the counts and a seed.
"""

import numpy as np


def choose_valid_speakers(counts, wanted, seed):
    """Draw the speakers for validation.

    Arguments
    ---------
    counts : dict of int to int
        Usable utterances of each speaker who may validate.
    wanted : int or float
        Number of speakers, or below 1 a fraction of the speakers. Two are drawn at least.
    seed : int

    Returns
    -------
    chosen : list of int
        Sorted. Each has two utterances or more, as a target trial needs.

    Raises
    ------
    ValueError
        If the number is below 2, or too few speakers have two utterances.

    Example
    -------
    >>> choose_valid_speakers({0: 1, 1: 5, 2: 5, 3: 2, 4: 9}, 2, seed=1)
    [1, 3]
    """
    able = sorted(speaker for speaker, count in counts.items() if count >= 2)
    number = max(round(wanted * len(counts)), 2) if 0 < wanted < 1 else wanted
    if number != int(number) or number < 2:
        raise ValueError(
            f"valid_speakers must be 2 or more, or a fraction between 0 and 1, not {wanted}"
        )
    if number > len(able):
        raise ValueError(
            f"valid_speakers {wanted}: {int(number)} speakers with two utterances or more are needed for "
            f"validation, and {len(able)} of {len(counts)} speakers have so many"
        )
    random = np.random.default_rng([seed, 11])
    return sorted(random.choice(able, int(number), replace=False).tolist())


def choose_classes(counts, n_speakers, n_utterances):
    """Choose the speakers of a classification, and how many utterances each gives.

    The speakers with most utterances are taken; of equal ones, the first by name. All give the same number of
    utterances, as far as they have so many; where the total does not divide, those with most give one more.

    Arguments
    ---------
    counts : dict of str to int
        Usable utterances of each speaker.
    n_speakers : int, optional
        None takes all.
    n_utterances : int, optional
        Utterances of all of them together, fewer where there are not so many. None takes all.

    Returns
    -------
    shares : dict of str to int
        Utterances of each chosen speaker, the speakers sorted.

    Raises
    ------
    ValueError
        If there are too few speakers, or fewer than two utterances a speaker are asked for.

    Example
    -------
    >>> choose_classes({"a": 9, "b": 3, "c": 2, "d": 9}, 3, 11)
    {'a': 4, 'b': 3, 'd': 4}
    """
    able = {speaker: count for speaker, count in counts.items() if count >= 2}
    n_speakers = len(able) if n_speakers is None else n_speakers
    if not 2 <= n_speakers <= len(able):
        raise ValueError(
            f"n_speakers must be 2 to {len(able)}, the speakers with two utterances or more, not {n_speakers}"
        )
    chosen = sorted(able, key=lambda speaker: (-able[speaker], speaker))[:n_speakers]
    total = sum(able[speaker] for speaker in chosen)
    wanted = total if n_utterances is None else min(n_utterances, total)
    if wanted < 2 * n_speakers:
        raise ValueError(
            f"n_utterances must be {2 * n_speakers} or more, two for each of {n_speakers} speakers, "
            f"not {n_utterances}"
        )
    limit, most = 0, able[chosen[0]]
    while limit < most and sum(min(able[one], limit + 1) for one in chosen) <= wanted:
        limit += 1
    shares = {speaker: min(able[speaker], limit) for speaker in chosen}
    more = wanted - sum(shares.values())
    for speaker in [one for one in chosen if able[one] > limit][:more]:
        shares[speaker] += 1
    return dict(sorted(shares.items()))


def split_utterances(utterances, shares, valid_fraction, seed):
    """Split the utterances of chosen speakers; every speaker is on both sides as far as the fraction allows.

    Arguments
    ---------
    utterances : dict of str to list of int
        Utterances of each speaker.
    shares : dict of str to int
        Utterances to take of each speaker; which ones is drawn.
    valid_fraction : float
        Share of all of them that is for validation, between 0 and 1.
    seed : int

    Returns
    -------
    train, valid : list of int
        Sorted. `valid` has that share of the total, to the nearest utterance.

    Raises
    ------
    ValueError
        If the fraction is out of range, or leaves nothing on one side.

    Example
    -------
    >>> split_utterances({"a": [0, 1, 2, 3], "b": [4, 5, 6]}, {"a": 4, "b": 2}, 0.34, seed=0)
    ([0, 2, 3, 4], [1, 6])
    """
    if not 0 < valid_fraction < 1:
        raise ValueError(f"valid_fraction must be between 0 and 1, not {valid_fraction}")
    exact = {speaker: count * valid_fraction for speaker, count in shares.items()}
    wanted = round(sum(exact.values()))
    numbers = {speaker: int(share) for speaker, share in exact.items()}
    # those whose share was cut most get one more, but nobody leaves training
    rest = sorted(exact, key=lambda one: (numbers[one] - exact[one], one))
    rest = [one for one in rest if numbers[one] + 1 < shares[one]]
    for speaker in rest[: wanted - sum(numbers.values())]:
        numbers[speaker] += 1
    train, valid = [], []
    random = np.random.default_rng([seed, 12])
    for speaker, count in shares.items():
        drawn = random.permutation(utterances[speaker])[:count].tolist()
        valid += drawn[: numbers[speaker]]
        train += drawn[numbers[speaker] :]
    if not valid:
        raise ValueError(
            f"valid_fraction {valid_fraction} of {len(train)} utterances leaves none for validation"
        )
    return sorted(train), sorted(valid)
