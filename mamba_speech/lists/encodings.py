"""The lines of a list, whatever encoding and line ends a program wrote it in.

UTF-8, with or without a byte order mark, and UTF-16 with one are read. Western lists (Windows-1252, Latin-1) are read
where no other code page makes a text of them. Everything else is refused by line number and byte: a wrong guess would
train on wrong letters.
"""

import codecs
import gzip
import io
import re
import zlib

from mamba_speech.lists.rows import ListError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Letters beyond ASCII of languages by code page, in lower case. A list is Western if the Western languages together
# have its letters, and no language of another page has the letters that the same bytes are there. Words of Cyrillic,
# Greek and other pages have no letters of ASCII.
_WESTERN = "áàâäãåæçéèêëíìîïðñóòôöõøœßúùûüýÿþšž"
_OTHERS = {
    "cp1250": (
        "áčďéěíňóřšťúůýž",
        "ąćęłńóśźż",
        "áéíóöőúüű",
        "áäčďéíĺľňóôŕšťúýž",
        "čćđšž",
        "ăâîşţ",
    ),
    "cp1254": ("çğıöşüâîûi̇",),
    "cp1257": ("āčēģīķļņšūž", "ąčęėįšųūž", "äõöüšž"),
}
# the same in these pages, or no letters
_SIGNS = "’‘“”„–—…«»°·¿¡€§£©®\xa0"
# what other pages' letters look like: a low quotation mark inside a word, a capital after a small letter, a
# word of such letters alone
_MIXED = re.compile(r"[a-zA-Z][^\W\d_a-zA-Z]|[^\W\d_a-zA-Z][a-zA-Z]")
_ODD = re.compile(r"\w[„¿¡§£©®]\w|[a-zß-ÿ][ŠŽŒÀ-Þ]|\b[^\W\d_a-zA-Z]{3,}\b")
_HIGH = re.compile(rb"[\x80-\xff]")


def read_lines(path):
    """The lines of a file, numbered, without their ends (LF, CRLF, or CR alone).

    Arguments
    ---------
    path : str or Path
        File of text, compressed by gzip or not.

    Yields
    ------
    (int, str)

    Raises
    ------
    OSError
        If the file cannot be read.
    ListError
        If its encoding cannot be told, or gzip's data are damaged.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write("path\\rä.wav".encode("utf-16")), file.flush()
    ...     list(read_lines(file.name))
    [(1, 'path'), (2, 'ä.wav')]
    """
    data = _read_bytes(path)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None:
        encoding = _encoding(path, data)
    try:
        # universal newlines end lines at these three and nowhere else, unlike str.splitlines
        text = io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline=None)
        for number, line in enumerate(text, start=1):
            yield number, line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ListError(_undecodable(path, data, encoding)) from error


def _read_bytes(path):
    with open(path, "rb") as file:
        data = file.read()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ListError(f"{path}: its compression is damaged ({error})") from error


def _encoding(path, data):
    if data[:2000].count(b"\0") > len(data[:2000]) // 5:
        raise ListError(
            f"{path}: is UTF-16 without a byte order mark, or no text at all; save the list as UTF-8"
        )
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        if b"\0" not in data and _is_western(data):
            return "cp1252"
        raise ListError(_undecodable(path, data, "utf-8")) from error


def _is_western(data):
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    high = bytes({one[0] for one in _HIGH.findall(data)})
    here = set(high.decode("cp1252").lower()) - set(_SIGNS)
    if not here <= set(_WESTERN) or _ODD.search(text) or here and not _MIXED.search(text):
        return False
    for page, alphabets in _OTHERS.items():
        there = set(high.decode(page, errors="replace").lower()) - set(_SIGNS)
        if there != here and any(there <= set(alphabet) for alphabet in alphabets):
            return False
    return True


def _undecodable(path, data, encoding):
    if encoding in ("utf-8", "utf-8-sig"):
        for number, line in enumerate(re.split(rb"\r\n|\r|\n", data), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = (
                    f"line {number}, byte {error.start + 1} of the line (0x{line[error.start]:02X})"
                )
                break
        return f"{path}, {place}: is not UTF-8, and its encoding cannot be told; save the list as UTF-8"
    return f"{path}: begins as {encoding.upper()} and holds bytes that are none; save the list as UTF-8"
