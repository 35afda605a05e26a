"""Names of recordings, and texts, as lines show them: whatever is in them, a line stays a line and prints everywhere.

A name may hold tabs, line breaks, codes that move a terminal's cursor, and bytes that are no text. A stream may know
ASCII letters only.
"""

import codecs
import io
import logging
import os
import re
import sys

# control characters, the line breaks of Unicode, and bytes that are no text but control codes to some terminals
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udc9f]")
# a path of Windows is full of backslashes, and holds no control character
_ESCAPED = re.compile(rf"{_CONTROL.pattern}|\\") if os.sep == "/" else _CONTROL
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}
ESCAPES = (
    r"In a path or a text, a tab is printed as \t, a line break as \n or \r, a backslash as \\, another control "
    r"character as \x1b, and a letter that the stream cannot print as \xe9 or \u0436."
)
_HANDLER = "mamba_speech_names"


def plain(text, backslashes=True):
    r"""A text as one line without tabs: control characters are escaped as Python escapes them.

    Arguments
    ---------
    text : str
    backslashes : bool
        Whether a backslash is doubled, so that the text can be told from what is escaped; never on Windows.

    Returns
    -------
    str

    Example
    -------
    >>> print(plain("a\tb\x1b[31m.wav"))
    a\tb\x1b[31m.wav
    >>> print(plain("été.wav"))
    été.wav
    """
    return (_ESCAPED if backslashes else _CONTROL).sub(lambda found: _escape(found[0]), text)


def _escape(letter):
    if letter in _SHORT:
        return _SHORT[letter]
    escaped = letter.encode("ascii", "backslashreplace").decode()
    return f"\\x{ord(letter):02x}" if escaped == letter else escaped


def has_controls(text):
    """Whether a text holds control characters."""
    return _CONTROL.search(text) is not None


def is_utf8(text):
    """Whether a text can be written as UTF-8; a name that holds other bytes cannot."""
    return printable(text) == text


def printable(text):
    r"""A text with ``\udce9`` and the like in place of bytes that are not UTF-8.

    Example
    -------
    >>> printable("caf\udce9.wav")
    'caf\\udce9.wav'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def safe_streams():
    """Let stdout and stderr print every text: bytes of names as they came, other letters escaped if need be."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


class PlainFormatter(logging.Formatter):
    """A formatter of log lines in which control characters are escaped; line breaks stay."""

    def format(self, record):
        """The line of a record."""
        lines = super().format(record).split("\n")
        return "\n".join(plain(line, backslashes=False) for line in lines)


def _encode(error):
    """What a stream prints in place of letters that it does not know."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wide = error.encoding.lower().replace("-", "").replace("_", "").startswith(("utf16", "utf32"))
    parts = []
    for letter in error.object[error.start : error.end]:
        byte = not wide and "\udc80" <= letter <= "\udcff"
        parts.append(letter.encode("ascii", "surrogateescape" if byte else "backslashreplace"))
    whole = b"".join(parts)
    return (whole.decode("ascii") if wide else whole), error.end


codecs.register_error(_HANDLER, _encode)
