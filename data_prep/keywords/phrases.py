"""Where a keyword is written: in a transcript, or in the name of a file or a folder.

A background in which a keyword is said would teach a spotter not to hear it.
"""

import re
from pathlib import Path


class Phrases:
    """Finds keywords in texts, whatever the case and the marks between their parts.

    Arguments
    ---------
    words : iterable of str
        Keywords, such as ``yes`` or ``smart_mirror``.

    Example
    -------
    >>> phrases = Phrases(["smart_mirror", "alexa"])
    >>> [text for text in ("The SMART mirror", "smartmirror-2", "Alexander") if phrases.within(text)]
    ['The SMART mirror', 'smartmirror-2']
    """

    def __init__(self, words):
        self._phrases = {form for word in words for form in _forms(word)}

    def within(self, text):
        """Whether a keyword stands in a text as a whole word, or as whole words."""
        text = f" {' '.join(_parts(text))} "
        return any(f" {phrase} " in text for phrase in self._phrases)

    def named(self, path, folder):
        """Whether the name of a file, or of a folder between it and ``folder``, holds a keyword."""
        below = Path(path).relative_to(folder).with_suffix("")
        return any(self.within(part) for part in below.parts)


def _forms(word):
    parts = _parts(word)
    return {" ".join(parts), "".join(parts)} - {""}


def _parts(text):
    """Runs of letters and marks of speech, and runs of digits, in lower case."""
    return re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+", text.casefold())
