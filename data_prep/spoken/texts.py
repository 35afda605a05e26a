"""What is said: sentences drawn from small grammars, with splits that can never share a sentence.

A grammar file holds rules (lists of phrases in which `{name}` stands for another rule) and word
lists. A sentence's own letters decide its split, so that no test sentence is in any training set,
whatever the seed or the size. Words follow Zipf's law within their list, as words of a language do, and
one in five is drawn least-used first, so that all of them soon occur.
"""

import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from mamba_speech.files import read_json

DATA = Path(__file__).with_name("data")
SHORTEST, LONGEST = 3, 12

# Of twenty sentences, one belongs to dev, two to test and the others to train.
BUCKETS = ("dev", "test", "test") + 17 * ("train",)

SLOT = re.compile(r"\{(\w+)\}")


def split_of(sentence):
    """The only split in which a sentence may occur: `train`, `dev` or `test`.

    Example
    -------
    >>> split_of("the cat slept") == split_of("The  cat slept")
    True
    """
    letters = " ".join(sentence.lower().split())
    return BUCKETS[zlib.crc32(letters.encode()) % len(BUCKETS)]


class Grammar:
    """The sentences of one language.

    Arguments
    ---------
    language : str
        `en` or `ru`: the name of a grammar file in `data/`.

    Raises
    ------
    ValueError
        For an unknown language.
    """

    def __init__(self, language):
        path = DATA / f"grammar_{language}.json"
        if not path.is_file():
            known = sorted(other.stem.partition("_")[2] for other in DATA.glob("grammar_*.json"))
            raise ValueError(f"no grammar for language {language!r}; choose one of {known}")
        content = read_json(path)
        self.rules = content["rules"]
        for name, words in content["words"].items():
            self.rules[name] = words.split()

    def vocabulary(self):
        """Every word that a sentence can hold, as a sorted list."""
        phrases = (phrase for phrases in self.rules.values() for phrase in phrases)
        return sorted({word for phrase in phrases for word in SLOT.sub(" ", phrase).split()})


class SentenceSource:
    """An endless source of different sentences of one split.

    Arguments
    ---------
    grammar : Grammar
    split : str
        `train`, `dev` or `test`.
    seed : int

    Example
    -------
    >>> source = SentenceSource(Grammar("en"), "test", seed=1)
    >>> split_of(source.draw())
    'test'
    """

    # A grammar that gives nothing new in so many draws is exhausted.
    PATIENCE = 2000

    # So often a phrase is drawn without regard to its use; without this, words that exclude each
    # other could block the draw.
    EXPLORATION = 0.2

    # So often a word is drawn for being the least used of its list, and not by its rank.
    COVERAGE = 0.2

    # Mandelbrot's shift of Zipf's law: the word of rank r has the weight 1 / (r + shift).
    ZIPF_SHIFT = 2.7

    def __init__(self, grammar, split, seed):
        self.grammar = grammar
        self.split = split
        self._random = np.random.default_rng([seed, zlib.crc32(split.encode())])
        self._used = Counter()
        self._seen = set()

    def draw(self):
        """Return a sentence that was not returned before, names capitalised, unpunctuated.

        Raises
        ------
        RuntimeError
            If the grammar has no further sentence for this split.
        """
        for _ in range(self.PATIENCE):
            words = []
            sentence = self._expand("sentence", words)
            length = len(sentence.split())
            if (
                sentence in self._seen
                or not SHORTEST <= length <= LONGEST
                or split_of(sentence) != self.split
            ):
                continue
            self._seen.add(sentence)
            self._used.update(words)
            return sentence
        raise RuntimeError(
            f"the grammar has no new sentence for the {self.split} split after "
            f"{len(self._seen)}; ask for less speech"
        )

    def _expand(self, rule, words):
        phrases = self.grammar.rules[rule]
        words_only = not any(SLOT.search(phrase) for phrase in phrases)
        if words_only and self._random.random() >= self.COVERAGE:
            weights = 1 / (np.arange(1, len(phrases) + 1) + self.ZIPF_SHIFT)
            phrase = phrases[self._random.choice(len(phrases), p=weights / weights.sum())]
        elif self._random.random() < self.EXPLORATION:
            phrase = phrases[self._random.integers(len(phrases))]
        else:
            used = np.array([self._used[rule, phrase] for phrase in phrases])
            phrase = phrases[self._random.choice(np.flatnonzero(used == used.min()))]
        # A word counts as used only in an accepted sentence, so that rejections leave no word out.
        # A phrase with slots counts at once: one that has nothing new to give must not be
        # offered for ever.
        if SLOT.search(phrase):
            self._used[rule, phrase] += 1
        else:
            words.append((rule, phrase))
        return SLOT.sub(lambda slot: self._expand(slot[1], words), phrase)
