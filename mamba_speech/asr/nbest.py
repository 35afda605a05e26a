"""The best texts of a search: each once, with its score."""

from typing import NamedTuple


class Hypothesis(NamedTuple):
    """A text that a search found, and its score; a score compares texts of one recording only."""

    text: str
    score: float


def check_nbest(count, most, search):
    """Refuse a number of texts that a search of `most` hypotheses cannot give.

    Raises
    ------
    ValueError
        The error names `search`, which can.
    """
    if not (isinstance(count, int) and 1 <= count <= most):
        more = "" if count == 1 else f"; {count} needs {search} of {count} or more"
        raise ValueError(f"nbest must be from 1 to {most} in this decoding{more}; got {count}")


def distinct_texts(pairs):
    """Hypotheses, each text once, with the first score."""
    found = {}
    for text, score in pairs:
        found.setdefault(text, float(score))
    return [Hypothesis(text, score) for text, score in found.items()]
