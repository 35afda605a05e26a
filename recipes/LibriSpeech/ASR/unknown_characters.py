"""Characters of the texts that the tokenizer lacks: counted, listed, and refused where they are too many.

Training goes on without them. In a test they count as errors, since the references keep them.
"""

import logging
from collections import Counter
from pathlib import Path

from speechbrain.utils.distributed import run_on_main

from mamba_speech.files import write_csv

logger = logging.getLogger(__name__)

COLUMNS = ("character", "code_point", "count", "texts")
# characters that a log line or an error shows
_SHOWN = 5


class UnknownCharacters:
    """Counts of the characters that a tokenizer lacks in some texts; white space does not count.

    Arguments
    ---------
    texts : list of str
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer

    Attributes
    ----------
    counts, texts : collections.Counter
        Occurrences of each unknown character, and texts that have it.
    affected : int
        Texts with unknown characters.
    total : int
        Characters of all texts.
    """

    def __init__(self, texts, tokenizer):
        self.counts, self.texts, self.affected = Counter(), Counter(), 0
        self.total = sum(len("".join(text.split())) for text in texts)
        # what is known by itself is known in any text, so that most sets need no second look
        odd = {one for one in set().union(*texts) if tokenizer.lacking(one)}
        for text in texts if odd else ():
            if found := tokenizer.lacking(text) if odd.intersection(text) else []:
                self.affected += 1
                self.counts.update(found)
                self.texts.update(set(found))

    @property
    def share(self):
        """Part of all characters that is unknown."""
        return min(1.0, self.counts.total() / self.total) if self.total else 0.0

    def shown(self):
        """The most frequent unknown characters, with their counts."""
        most = [f"{ascii_or_itself(one)} {count}" for one, count in self.counts.most_common(_SHOWN)]
        more = len(self.counts) - len(most)
        return ", ".join(most) + (f" and {more} more" if more else "")

    def rows(self):
        """Character, code point, occurrences and texts, the most frequent first."""
        return [
            (one, f"U+{ord(one):04X}", count, self.texts[one])
            for one, count in self.counts.most_common()
        ]


def ascii_or_itself(character):
    """A character in quotation marks; its number where it cannot be seen by itself.

    Example
    -------
    >>> ascii_or_itself("\\u00e9"), ascii_or_itself("\\u0301")
    ("'\u00e9'", "'\\\\u0301'")
    """
    return repr(character) if character.isalnum() or character.isascii() else ascii(character)


def check_characters(name, texts, tokenizer, hparams, trained=False):
    """Count the characters of a set that the tokenizer lacks, list them, and refuse a set with too many.

    The list is ``unknown_characters_NAME.csv`` in the output folder, with a row for each character.

    Arguments
    ---------
    name : str
        Name of the set.
    texts : list of str
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    hparams : dict
        With ``output_folder``, and ``max_unknown`` where there is a limit.
    trained : bool
        Whether the set is trained on.

    Raises
    ------
    SystemExit
        With one message, if the tokenizer lacks more than ``max_unknown`` of the characters.
    """
    unknown = UnknownCharacters(texts, tokenizer)
    file = Path(hparams["output_folder"]) / f"unknown_characters_{name}.csv"
    run_on_main(_write, args=(file, unknown.rows()))
    if not unknown.counts:
        return
    limit = hparams.get("max_unknown", 1.0)
    if unknown.share > limit:
        raise SystemExit(
            f"{name}: the tokenizer lacks {unknown.share:.0%} of the characters, most often {unknown.shown()}: is it "
            f"the case? {_advice(texts, tokenizer, limit)}; --max_unknown 1 takes them all the same (see {file})"
        )
    logger.warning(
        "%s: the tokenizer lacks %d of %d characters (%s %%), in %d of %d texts: %s; %s; see %s",
        name,
        unknown.counts.total(),
        unknown.total,
        _percent(unknown.share),
        unknown.affected,
        len(texts),
        unknown.shown(),
        "training goes on without them" if trained else "they count as errors",
        file,
    )


def _percent(share):
    """Two digits of a percentage, and never an exponent."""
    if share < 0.0001:
        return "less than 0.01"
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def _advice(texts, tokenizer, limit):
    """What to do about many unknown characters, by a try with other cases."""
    for case in ("lower", "upper"):
        share = UnknownCharacters([getattr(text, case)() for text in texts], tokenizer).share
        if share <= limit:
            return (
                f"In {case} case it lacks {share:.0%}: write the texts in {case} case, or train with "
                f"--text_case {case}"
            )
    return (
        "No: in neither case they fit; give texts like those of the training, or another tokenizer"
    )


def _write(file, rows):
    if rows:
        write_csv(file, COLUMNS, rows)
    else:
        file.unlink(missing_ok=True)
