"""One policy for every text: of transcripts, of references and hypotheses, and of language models.

Two spellings of one text become one: characters are composed (NFC), invisible ones go, white space and hyphens have one
form each. Options decide about apostrophes, case, digits and punctuation. Nothing is read out: `5` stays `5`.
Sources: Unicode Standard Annexes 15 (normalisation) and 31, section 2.3 (joiners).
"""

import logging
import re
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

from mamba_speech.files import write_csv

logger = logging.getLogger(__name__)

PREFIX = "text_"
CHOICES = {
    "apostrophes": ("straight", "keep"),
    "case": ("keep", "upper", "lower"),
    "digits": ("keep", "skip"),
    "punctuation": ("keep", "remove"),
}
# names of the options in a YAML
TEXT_OPTIONS = ("text_apostrophes", "text_case", "text_digits", "text_punctuation")
CHANGES_COLUMNS = ("change", "texts", "characters", "first")
HAS_DIGITS = "digits in the text, which --text_digits skip leaves out"

APOSTROPHES = "\u2019\u2018\u201b\u02bc\uff07`\u00b4"
_APOSTROPHE = re.compile(f"[{APOSTROPHES}]")
_HYPHEN = re.compile("[\u2010\u2011]")
# SentencePiece writes spaces as this mark, and reads the mark as a space
_WORD_MARK = "\u2581"
# visible to no reader, though no format characters: fillers, the grapheme joiner, variation selectors
_FILLERS = frozenset({"\u034f", "\u3164", "\uffa0", *map(chr, range(0xFE00, 0xFE10))})
_NON_JOINER, _JOINER, _VOWEL_SEPARATOR = "\u200c", "\u200d", "\u180e"
# first words of the names of characters whose scripts are spelt with joiners
_JOINING_SCRIPTS = frozenset(
    (
        *("ADLAM", "ARABIC", "BALINESE", "BENGALI", "BRAHMI", "CHAKMA", "DEVANAGARI"),
        *("GRANTHA", "GUJARATI", "GURMUKHI", "JAVANESE", "KAITHI", "KANNADA", "KHMER"),
        *("KHUDAWADI", "MALAYALAM", "MANDAIC", "MODI", "MONGOLIAN", "MYANMAR", "NEWA", "NKO"),
        *("ORIYA", "PHAGS-PA", "SHARADA", "SINHALA", "SYRIAC", "TAMIL", "TELUGU", "TIBETAN"),
        "TIRHUTA",
    )
)
# of a word, where letters stand on both sides; the last ones are Catalan, Hebrew and Tibetan
_WITHIN_WORDS = frozenset("'-\u2010\u2011" + APOSTROPHES + "\u00b7\u05be\u05f3\u05f4\u0f0b")
_WITHIN_NUMBERS = frozenset(".,:/")
# read aloud, though Unicode counts them as punctuation
_SPOKEN = frozenset("#%&@\u00a7\u2030")
# Armenian marks stand on a letter within a word: no space takes their place
_ON_LETTERS = frozenset("\u055b\u055c\u055e\u055f")


@dataclass(frozen=True)
class TextPolicy:
    """What happens to a text before anything else reads it.

    Arguments
    ---------
    apostrophes : str
        `straight` writes every kind of apostrophe as `'`; `keep` leaves them.
    case : str
        `keep`, `upper` or `lower`, by Unicode's rules of no particular language.
    digits : str
        `keep` leaves them; `skip` leaves the texts out that have digits, since nothing here reads numbers out.
    punctuation : str
        `keep`, or `remove`: apostrophes and hyphens within words stay, and points and commas within numbers.

    Raises
    ------
    ValueError
        If a value is none of these.

    Example
    -------
    >>> TextPolicy().normalise("  cafe\\u0301,\\u00a0it\\u2019s\\u200b  so\\u00adft")
    "caf\u00e9, it's soft"
    >>> TextPolicy(case="lower", punctuation="remove").normalise("\\u201cWell\\u2014it\\u2019s 3.5 %!\\u201d")
    "well it's 3.5 %"
    >>> TextPolicy().normalise("\\u200b\\ufeff")
    ''
    """

    apostrophes: str = "straight"
    case: str = "keep"
    digits: str = "keep"
    punctuation: str = "keep"

    def __post_init__(self):
        for name, value in asdict(self).items():
            if value not in CHOICES[name]:
                raise ValueError(
                    f"{PREFIX}{name} must be one of {', '.join(CHOICES[name])}; got {value!r}"
                )

    @classmethod
    def of(cls, options):
        """The policy in the options of a run; what they lack has its default."""
        names = (field.name for field in fields(cls))
        return cls(**{name: options[PREFIX + name] for name in names if PREFIX + name in options})

    def options(self):
        """The policy as options of a run: a dict of `text_case` and the others."""
        return {PREFIX + name: value for name, value in asdict(self).items()}

    def normalise(self, text):
        """The text under this policy. A second time changes nothing more."""
        return self.apply(text)[0]

    def apply(self, text):
        """The text under this policy, and what changed.

        Arguments
        ---------
        text : str

        Returns
        -------
        text : str
        changes : dict of str: int
            Characters that were replaced or removed, by the kind of change; blanks at the ends do not count.

        Example
        -------
        >>> TextPolicy(case="upper").apply("it\\u2019s\\n")
        ("IT'S", {'case': 3, 'apostrophes': 1})
        """
        text, changes = text.strip(), {}
        plain = text.isascii() and text.isprintable()
        if plain and self._leaves(text):
            return text, changes
        for kind, step in self._steps(plain):
            before, text = text, step(text)
            if text != before:
                gone = (Counter(before) - Counter(text)).total()
                changes[kind] = changes.get(kind, 0) + max(gone, 1)
        return text, changes

    def _leaves(self, plain):
        """Whether a text of printable ASCII stays as it is, which the steps would take longer to tell."""
        return (
            self.punctuation == "keep"
            and "  " not in plain
            and (self.apostrophes == "keep" or "`" not in plain)
            and (self.case == "keep" or plain == getattr(plain, self.case)())
        )

    def _steps(self, plain):
        """Kinds and functions, in their order; printable ASCII needs few."""
        if not plain:
            yield from (("composed", _compose), ("invisible", _drop_invisible))
        # capitals of some letters have apostrophes, and are no longer composed
        if self.case != "keep":
            yield "case", str.upper if self.case == "upper" else str.lower
        if self.apostrophes == "straight":
            yield "apostrophes", _straighten
        if self.punctuation == "remove":
            yield "punctuation", _drop_punctuation
        if not plain:
            yield "hyphens", _one_hyphen
            # marks in another order may leave a joiner without its letter
            yield from (("composed", _compose), ("invisible", _drop_invisible))
            yield "composed", _compose
        yield "spaces", _one_space

    def fault(self, text):
        """Why a text is left out, or None."""
        return HAS_DIGITS if self.digits == "skip" and _has_digits(text) else None


class TextChanges:
    """Counts what a policy changes in many texts.

    Arguments
    ---------
    policy : TextPolicy, optional

    Example
    -------
    >>> changes = TextChanges()
    >>> text, found = changes.policy.apply("it\\u2019s")
    >>> changes.add("utterance-1", found)
    >>> changes.rows()
    [('apostrophes', 1, 1, 'utterance-1')]
    """

    def __init__(self, policy=None):
        self.policy = TextPolicy() if policy is None else policy
        self.texts = 0
        self._texts, self._characters, self._first = Counter(), Counter(), {}

    def add(self, name, changes):
        """Add the changes of one text; see :meth:`TextPolicy.apply`."""
        self.texts += 1
        for kind, count in changes.items():
            self._texts[kind] += 1
            self._characters[kind] += count
            self._first.setdefault(kind, name)

    def rows(self):
        """Kind, texts, characters and the first text's name for each kind of change, the most frequent first."""
        return [
            (kind, count, self._characters[kind], self._first[kind])
            for kind, count in self._texts.most_common()
        ]

    def write(self, path, description):
        """Write the counts as a CSV file and log a line; where nothing changed, remove the file of an earlier run."""
        path = Path(path)
        if not self._texts:
            path.unlink(missing_ok=True)
            return
        write_csv(path, CHANGES_COLUMNS, self.rows())
        counts = ", ".join(f"{kind} in {count}" for kind, count, _, _ in self.rows())
        logger.info(
            "%s: of %d texts, these were changed: %s; see %s", description, self.texts, counts, path
        )


def _compose(text):
    return unicodedata.normalize("NFC", text)


def _straighten(text):
    return _APOSTROPHE.sub("'", text)


def _one_hyphen(text):
    return _HYPHEN.sub("-", text)


def _one_space(text):
    return " ".join(text.replace(_WORD_MARK, " ").split())


def _drop_invisible(text):
    gone = {one for one in set(text) if _is_invisible(one)}
    if not gone:
        return text
    kept = []
    for index, one in enumerate(text):
        if one not in gone or _is_needed(one, kept, text[index + 1 :].lstrip("".join(gone))):
            kept.append(one)
    return "".join(kept)


@lru_cache(4096)
def _is_invisible(one):
    """Whether a character has no form of its own: format and control characters, halves of pairs, fillers."""
    if one.isascii() and one.isprintable():
        return False
    return not one.isspace() and (
        unicodedata.category(one) in ("Cf", "Cc", "Cs") or one in _FILLERS
    )


def _is_needed(one, before, after):
    """Whether a joiner belongs to the spelling; a non-joiner does between two letters only."""
    if one not in (_NON_JOINER, _JOINER, _VOWEL_SEPARATOR) or not before or not _joins(before[-1]):
        return False
    return one == _JOINER or (bool(after) and _joins(after[0]))


@lru_cache(4096)
def _joins(one):
    """Whether a character is a letter or a mark of a script with joiners."""
    script = unicodedata.name(one, "").partition(" ")[0]
    return script in _JOINING_SCRIPTS and unicodedata.category(one)[0] in "LM"


@lru_cache(4096)
def _is_punctuation(one):
    return (unicodedata.category(one)[0] == "P" and one not in _SPOKEN) or one in APOSTROPHES


def _drop_punctuation(text):
    if not any(_is_punctuation(one) for one in set(text)):
        return text
    kept = []
    for index, one in enumerate(text):
        if not _is_punctuation(one) or _is_within(text, index):
            kept.append(one)
        elif one not in _ON_LETTERS:
            kept.append(" ")
    left = "".join(kept)
    # the blanks in place of marks are no change of their own
    return text if left == text else _one_space(left)


def _is_within(text, index):
    """Whether a mark stands within a word or a number."""
    if not 0 < index < len(text) - 1:
        return False
    sides, one = (text[index - 1], text[index + 1]), text[index]
    if one in _WITHIN_WORDS:
        return all(_is_of_word(side) for side in sides)
    return one in _WITHIN_NUMBERS and all(side.isdecimal() for side in sides)


def _is_of_word(one):
    # one apostrophe, U+02BC, counts as a letter in Unicode
    return unicodedata.category(one)[0] in "LMN" and one not in APOSTROPHES


def _has_digits(text):
    return any(unicodedata.category(one) in ("Nd", "No") for one in text)
