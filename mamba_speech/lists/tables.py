"""Rows of tables: commas, tabs, semicolons or pipes between the cells, with a line of names or without.

Each line is a row of its own, so an unclosed quotation mark costs one row and never swallows the next.
"""

import csv
import os

from mamba_speech.audio.finding import AUDIO
from mamba_speech.audio.media_formats import SUFFIXES as MEDIA
from mamba_speech.lists.rows import (
    LONGEST_CELL,
    ListError,
    ListRow,
    find_columns,
    is_own_manifest,
    make_row,
)

DELIMITERS = {".csv": ",", ".tsv": "\t", ".psv": "|", ".txt": "|", ".lst": "|"}
# Columns of a table without a line of names, by their number. LJSpeech has an id, the text and the text spelt out.
_NAMELESS = {1: ("path",), 2: ("path", "text"), 3: ("path", "", "text")}


def read_table(path, lines, locate, suffix, needed=("path",)):
    """Rows of a table.

    The delimiter is the one under which the first line names a column for paths; the ending of the file says which is
    tried first. A first line of pipes or tabs without such a name is a row: path and text, or LJSpeech's id, text and
    text spelt out.

    Arguments
    ---------
    path : str or Path
        Name of the list, for errors.
    lines : iterable of (int, str)
        See :func:`mamba_speech.lists.encodings.read_lines`.
    locate : callable
        See :class:`mamba_speech.lists.places.Locator`.
    suffix : str
        Ending of the list's name, in lower case.
    needed : iterable of str
        Keys of ``NAMES`` that there must be columns for.

    Yields
    ------
    ListRow

    Raises
    ------
    ListError
        If there is no column for what is needed.
    """
    lines = ((number, line) for number, line in lines if line.strip())
    number, first = next(lines, (1, ""))
    hint = ""
    # Excel's own hint, and comments before the names
    while first.startswith("#") or first.lower().startswith("sep=") and len(first.strip()) == 5:
        hint = first.strip()[4:] if first.lower().startswith("sep=") else hint
        number, first = next(lines, (number, ""))
    delimiter, header = _find_header(first, hint or DELIMITERS.get(suffix, ","))
    if header is None:
        header = _nameless(first, delimiter, locate)
        lines = _with_first((number, first), lines)
    columns, own = find_columns(header), is_own_manifest(header)
    _check_names(path, number, header, columns, needed)
    width = len(header)
    for number, line in lines:
        place = f"line {number}"
        try:
            cells = split_line(line, delimiter, width)
            if width == 1 and len(cells) > 1 and '"' not in line:
                # the delimiter belongs to the only cell
                cells = [line]
            if len(cells) != width:
                raise ValueError(_wrong_width(len(cells), width, delimiter))
        except ValueError as error:
            yield ListRow(place=place, fault=str(error))
            continue
        said = dict(zip(header, cells, strict=True))
        said = {key: said[column] for key, column in columns.items()}
        yield make_row(place, said, locate, own, comma=delimiter == ";")


def split_line(line, delimiter, width=None):
    """The cells of a line.

    With tabs and pipes, quotation marks are plain characters unless they enclose a cell and are doubled inside it.

    Arguments
    ---------
    line : str
    delimiter : str
    width : int, optional
        Cells that are expected. Empty cells after so many are delimiters too many, which programs write.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If quotation marks are wrong, or a cell is too long; the sentence names no line.

    Example
    -------
    >>> split_line('a.wav\\t"Hello, he said.\\t"yes ""now\"""', "\\t")
    ['a.wav', '"Hello, he said.', 'yes "now"']
    >>> split_line('a.wav,"yes, now",', ",", 2)
    ['a.wav', 'yes, now']
    """
    if delimiter in "\t|":
        cells = line.split(delimiter)
        if width is not None and len(cells) > width and '"' in line:
            cells = _quoted(line, delimiter, width) or cells
        cells = [_without_marks(cell) for cell in cells]
    else:
        cells = _strict(line, delimiter)
    while width is not None and len(cells) > width and not cells[-1].strip():
        cells.pop()
    return cells


def _find_header(first, expected):
    """The delimiter and the names of the columns; no names where the first line has none for paths."""
    best = None
    for delimiter in dict.fromkeys((expected, ",", "\t", ";", "|")):
        try:
            names = [name.strip() for name in split_line(first, delimiter)]
        except ValueError:
            continue
        while len(names) > 1 and not names[-1]:
            names.pop()
        columns = find_columns(names)
        if "path" in columns and (best is None or len(names) > len(best[1])):
            best = delimiter, names
    if best is not None:
        return best
    nameless = [one for one in "|\t" if one in first] or [expected]
    return nameless[0], None


def _nameless(first, delimiter, locate):
    """Names for the columns of a table that has none; what is no such table stands for its own names."""
    try:
        cells = split_line(first, delimiter)
        # prose, such as the notes beside recordings, names no file; a path whose file is missing is a bad row
        prose = len(cells) == 1 and not (
            os.path.splitext(cells[0].strip())[1].lower() in AUDIO | MEDIA
            or os.path.isfile(locate(cells[0].strip()))
        )
    except ValueError:
        return [first]
    if delimiter not in "|\t" or len(cells) not in _NAMELESS or any(find_columns(cells)) or prose:
        return cells
    return [name or f"column {index}" for index, name in enumerate(_NAMELESS[len(cells)])]


def _check_names(path, number, header, columns, needed):
    missing = [key for key in needed if key not in columns]
    if missing:
        names = ", ".join(name.strip()[:40] for name in header[:20] if name.strip()) or "none"
        raise ListError(
            f"{path}, line {number}: no column {' and no column '.join(missing)} among {names}; the first line must "
            "name the columns, such as path and text"
        )
    lower = [name.lower() for name in header]
    twice = next((name for name in columns.values() if lower.count(name.lower()) > 1), None)
    if twice:
        raise ListError(f"{path}, line {number}: names the column {twice} twice")


def _with_first(first, lines):
    yield first
    yield from lines


def _without_marks(cell):
    stripped = cell.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        inside = stripped[1:-1]
        if '"' not in inside.replace('""', ""):
            return inside.replace('""', '"')
    return cell


def _quoted(line, delimiter, width):
    """Cells that hold delimiters within quotation marks; None unless that gives the number of cells."""
    try:
        cells = _strict(line, delimiter)
    except ValueError:
        return None
    return cells if len(cells) == width else None


def _strict(line, delimiter):
    reader = csv.reader(
        [line], delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True
    )
    try:
        return next(reader, [])
    except csv.Error as error:
        raise ValueError(_fault(str(error))) from error


def _fault(error):
    if "end of data" in error:
        return "a quotation mark is not closed on its line"
    if "expected after" in error:
        return "text follows a closing quotation mark"
    if "field larger" in error:
        return f"a cell has more than {LONGEST_CELL:,} characters"
    return f"cannot be read as a row ({error})"


def _wrong_width(found, width, delimiter):
    cells = "1 cell" if found == 1 else f"{found} cells"
    columns = "1 column" if width == 1 else f"{width} columns"
    remedy = (
        ""
        if found < width or delimiter in "\t|"
        else "; put texts with the delimiter in quotation marks"
    )
    return f"{cells} under {columns}{remedy}"
