"""Drawing mixture lists: which speakers meet, with which recordings, and how loud.

In the manner of WSJ0-2mix (Hershey et al., ICASSP 2016, section 4.1): different speakers, recordings at
random, levels that differ by 0 to 5 dB, and no speaker of one split in another.
"""

import zlib
from itertools import combinations, product

import numpy as np

from data_prep.mixtures.lists import SPLITS, Mixture, Source

# Largest gain (dB) of the first source; the second has its negative, a third none, as in WSJ0-3mix.
LARGEST_GAIN = 2.5
ATTEMPTS = 100
# Sets of recordings that are gone through one by one where drawing finds no more.
MOST_SETS = 5_000_000


def split_speakers(speakers, fractions, num_spks, seed):
    """Deal speakers out to the splits at random.

    Arguments
    ---------
    speakers : dict of str to list of str
        Recordings of each.
    fractions : dict of str to float
        Of the speakers, for `cv` and `tt`; the rest is `tr`. Splits that are not wanted are not
        in it. At least `num_spks` each.
    num_spks : int
    seed : int

    Returns
    -------
    splits : dict of str to dict of str to list of str

    Raises
    ------
    ValueError
        If there are too few speakers.

    Example
    -------
    >>> parts = split_speakers({name: [name] for name in "abcdef"}, {"cv": 0.1, "tt": 0.1}, 2, 0)
    >>> {split: len(part) for split, part in parts.items()}
    {'tr': 2, 'cv': 2, 'tt': 2}
    """
    names = sorted(speakers)
    counts = {
        split: max(round(fraction * len(names)), num_spks) for split, fraction in fractions.items()
    }
    left = len(names) - sum(counts.values())
    if left < num_spks:
        raise ValueError(
            f"{len(names)} speakers are too few for training and {len(counts)} other splits with "
            f"{num_spks} speakers each; give more speech, or 0 mixtures for a split"
        )
    random = np.random.default_rng([seed, zlib.crc32(b"speakers")])
    names = [names[index] for index in random.permutation(len(names))]
    splits = {}
    for split, count in ({"tr": left} | counts).items():
        splits[split] = {name: speakers[name] for name in sorted(names[:count])}
        names = names[count:]
    return splits


def draw_mixtures(speakers, split, count, num_spks=2, seed=1234, fits=None):
    """Draw a mixture list.

    Every recording has its turn as a first source, before any has a second; the others are drawn,
    first the speaker, then the recording. No set of recordings is mixed twice. As many are drawn as
    were asked for, whenever there are so many.

    Arguments
    ---------
    speakers : dict of str to list of str
        Recordings of each.
    split : str
        The ids begin with it, and what is drawn depends on it.
    count : int
    num_spks : int
    seed : int
    fits : callable, optional
        Whether a set of recordings can be mixed, from the list of their names; any can by default.

    Returns
    -------
    mixtures : list of Mixture

    Raises
    ------
    ValueError
        If there are not enough speakers or recordings; the sentence says how many mixtures there are.

    Example
    -------
    >>> draw_mixtures({"anna": ["a1", "a2"], "ben": ["b"]}, "tr", 2)[1].id
    'tr_00001'
    """
    if len(speakers) < num_spks:
        raise ValueError(
            f"mixtures of {num_spks} need as many speakers, the split {split} has {len(speakers)} "
            "with usable recordings"
        )
    possible = count_combinations([len(files) for files in speakers.values()], num_spks)
    random = np.random.default_rng([seed, zlib.crc32(split.encode())])
    drawn = draw_sets(random, speakers, min(count, possible), num_spks, fits)
    if len(drawn) < count:
        raise ValueError(
            f"only {len(drawn)} different mixtures of {num_spks} can be made from the recordings of "
            f"the split {split}, not {count}; ask for fewer"
        )
    width = max(5, len(str(count)))
    return [
        Mixture(f"{split}_{number:0{width}d}", with_gains(chosen, random))
        for number, chosen in enumerate(drawn)
    ]


def draw_sets(random, speakers, count, num_spks, fits=None):
    """Draw sets of recordings, each once.

    Arguments
    ---------
    random : np.random.Generator
    speakers : dict of str to list of str
    count : int
        At most as many as `count_combinations` says.
    num_spks : int
    fits : callable, optional
        See `draw_mixtures`.

    Returns
    -------
    drawn : list of list of (str, str)
        Speaker and recording of each source; fewer than `count` where no more fit.
    """
    names = sorted(speakers)
    recordings = [(name, file) for name in names for file in speakers[name]]
    drawn, seen, turn, fruitful = [], set(), [], True
    while len(drawn) < count:
        if not turn:
            if not fruitful:
                # nearly all that fit are drawn: the rest is looked for one by one
                left = list_rest(speakers, names, num_spks, seen, fits)
                order = random.permutation(len(left))[: count - len(drawn)]
                return drawn + [left[index] for index in order]
            turn, fruitful = list(random.permutation(len(recordings))), False
        first = recordings[turn.pop()]
        for _ in range(ATTEMPTS):
            chosen = [first, *draw_others(random, speakers, names, first[0], num_spks - 1)]
            key = frozenset(chosen)
            if key not in seen and (fits is None or fits([file for _, file in chosen])):
                seen.add(key)
                drawn.append(chosen)
                fruitful = True
                break
    return drawn


def list_rest(speakers, names, num_spks, seen, fits):
    """All sets of recordings that fit and are not in `seen`; none where there are millions to go through."""
    if count_combinations([len(files) for files in speakers.values()], num_spks) > MOST_SETS:
        return []
    return [
        list(zip(who, files, strict=True))
        for who in combinations(names, num_spks)
        for files in product(*(speakers[name] for name in who))
        if frozenset(zip(who, files, strict=True)) not in seen and (fits is None or fits(files))
    ]


def draw_others(random, speakers, names, first, count):
    """Recordings of `count` different speakers who are not `first`."""
    others = [name for name in random.permutation(names)[: count + 1] if name != first][:count]
    return [(str(name), speakers[name][random.integers(len(speakers[name]))]) for name in others]


def with_gains(chosen, random):
    """The sources of a mixture, with gains as in WSJ0-2mix and WSJ0-3mix."""
    gain = round(float(random.uniform(0, LARGEST_GAIN)), 4)
    gains = (gain, -gain, 0.0)[: len(chosen)]
    return tuple(
        Source(speaker, (file,), own) for (speaker, file), own in zip(chosen, gains, strict=True)
    )


def count_combinations(counts, num_spks):
    """How many sets of recordings there are with one of each of `num_spks` speakers.

    Example
    -------
    >>> count_combinations([2, 1, 3], 2)
    11
    """
    # Coefficients of the product of (1 + count x): the number is the coefficient of x^num_spks.
    ways = [1] + [0] * num_spks
    for count in counts:
        for order in range(num_spks, 0, -1):
            ways[order] += count * ways[order - 1]
    return ways[num_spks]


def choose_splits(speech, wanted, num_spks=2, seed=1234, fractions=None):
    """Who speaks in which split.

    Arguments
    ---------
    speech : dict of str to dict of str to list of str
        As `find_speech` gives it. Where it tells two or three sets apart, these are the splits;
        otherwise its speakers are dealt out.
    wanted : list of str
        Some of `tr`, `cv`, `tt`.
    num_spks : int
    seed : int
    fractions : dict of str to float, optional
        Of the speakers, for `cv` and `tt` where they are dealt out; a tenth each by default.

    Returns
    -------
    splits : dict of str to dict of str to list of str
        Speakers and their recordings, no speaker twice.

    Raises
    ------
    ValueError
        If no split is wanted, one has no speech, two share a speaker, or there are too few.
    """
    if not wanted:
        raise ValueError("no mixture is wanted: give --train, --valid or --test a number")
    named = speech.keys() & set(SPLITS)
    if are_told_apart(speech, wanted):
        missing = [split for split in wanted if split not in named]
        if missing:
            raise ValueError(
                f"the speech has parts for {', '.join(sorted(named))} but none for {missing[0]}; "
                "give its folder by --train_speech, --valid_speech or --test_speech, or 0 mixtures"
            )
        splits = {split: speech[split] for split in wanted}
    else:
        together = {}
        for speakers in speech.values():
            for speaker, files in speakers.items():
                together.setdefault(speaker, []).extend(files)
        given = {"cv": 0.1, "tt": 0.1} | (fractions or {})
        splits = split_speakers(
            together, {split: given[split] for split in wanted if split != "tr"}, num_spks, seed
        )
        splits = {split: splits[split] for split in wanted}
    check_disjoint(splits)
    return splits


def are_told_apart(speech, wanted):
    """Whether the sets of `find_speech` are the splits, so that sets of no wanted split are not needed."""
    named = speech.keys() & set(SPLITS)
    return len(named) > 1 or bool(named and named >= set(wanted))


def check_disjoint(splits):
    """Refuse splits that share a speaker."""
    owner = {}
    for split, speakers in splits.items():
        for speaker in speakers:
            if owner.setdefault(speaker, split) != split:
                raise ValueError(
                    f"the speaker {speaker} is in {owner[speaker]} and in {split}; the splits must "
                    "not share speakers (rename the folder if they are two people)"
                )
