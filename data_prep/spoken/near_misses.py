"""Words and phrases that sound like a keyword, by the phonemes of eSpeak NG.

Other speech teaches a spotter what is unlike a keyword; near misses teach it what is like one. The lexicon is the
vocabulary of the sentences' grammar, and pairs of its words.
"""

from data_prep.spoken.texts import Grammar
from data_prep.spoken.voices import Voice

# the accent whose phonemes are compared; every voice speaks the words in its own
REFERENCE = Voice("en-us")
# candidates for each part of a keyword that two words are to cover
PARTS = 12
STRESS = "',"
# sounds that are easily taken for one another, by the first letter of the engine's names: replacing one costs a half
ALIKE = ("pbtdkg", "fvszSZTDh", "mnN", "lrjw", "aAeEiIoOuUV@03")


def phoneme_distance(first, second):
    """The cost of making one sequence of phonemes into the other.

    To add or drop a phoneme costs 1, and to replace it as well, but only a half where the two are alike: both are
    vowels, or consonants of one kind. Source: Levenshtein, "Binary codes capable of correcting deletions, insertions,
    and reversals" (1966), with unequal costs.

    Example
    -------
    >>> phoneme_distance(["g", "oU"], ["g", "oU", "t"]), phoneme_distance(["p"], ["t"]), phoneme_distance("st", "")
    (1.0, 0.5, 2.0)
    """
    row = [float(number) for number in range(len(second) + 1)]
    for number, one in enumerate(first, start=1):
        before, row[0] = row[0], float(number)
        for index, other in enumerate(second, start=1):
            before, row[index] = (
                row[index],
                min(row[index] + 1, row[index - 1] + 1, before + _replacing(one, other)),
            )
    return row[-1]


def _replacing(one, other):
    if one == other:
        return 0.0
    return 0.5 if any(one[0] in kind and other[0] in kind for kind in ALIKE) else 1.0


def near_misses(synthesiser, words, count):
    """Words and phrases that sound most like each keyword, and are none.

    Arguments
    ---------
    synthesiser : data_prep.spoken.synthesiser.Synthesiser
    words : list of str
        The keywords.
    count : int
        For each of them.

    Returns
    -------
    misses : dict of str to list of str
        At most ``count``, the nearest first. What sounds exactly like a keyword, or holds one as a word, is not among
        them, nor what has no sound in common with it.

    Raises
    ------
    RuntimeError
        If the engine fails.

    Example
    -------
    >>> from data_prep.spoken.synthesiser import Synthesiser
    >>> with Synthesiser() as synthesiser:
    ...     near_misses(synthesiser, ["go"], 1)
    {'go': ['ago']}
    """
    lexicon = [word for word in Grammar("en").vocabulary() if word.isalpha()]
    known = sorted({*lexicon, *words})
    sounds = dict(zip(known, sounds_of(synthesiser, known), strict=True))
    keywords = {tuple(sounds[word]) for word in words}
    singles = [
        word
        for word in lexicon
        if word.lower() not in words and sounds[word] and tuple(sounds[word]) not in keywords
    ]
    return {word: _nearest(word, singles, sounds, keywords)[:count] for word in words}


def sounds_of(synthesiser, texts):
    """The phonemes of each text as a list, without stress."""
    bare = str.maketrans("", "", STRESS)
    return [
        [one for one in spoken.translate(bare).replace(" ", "_").split("_") if one]
        for spoken in synthesiser.phonemes(REFERENCE, texts)
    ]


def _nearest(word, singles, sounds, keywords):
    """All candidates for a keyword, the nearest first; of equals the shorter one, then by alphabet."""
    wanted = sounds[word]
    found = {one: phoneme_distance(wanted, sounds[one]) for one in singles}
    for cut in range(1, len(wanted)):
        halves = (
            sorted(singles, key=lambda one: (phoneme_distance(part, sounds[one]), one))[:PARTS]
            for part in (wanted[:cut], wanted[cut:])
        )
        first, second = halves
        for a in first:
            for b in second:
                joined = sounds[a] + sounds[b]
                if tuple(joined) not in keywords:
                    found[f"{a} {b}"] = phoneme_distance(wanted, joined)
    # a distance as long as the keyword leaves no phoneme of it
    near = [one for one, distance in found.items() if distance < len(wanted)]
    return sorted(near, key=lambda one: (found[one], len(one), one))
