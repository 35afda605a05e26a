"""Files written whole or not at all: text, JSON, CSV, WAV, copies, and whatever a library writes. CSV read strictly.

A file is written under a temporary name beside its own and then renamed. A killed run leaves at most a file with
the suffix ``.partial``, which nothing reads.
"""

import csv
import hashlib
import json
import math
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

# how numbers that are not finite, for which JSON has no word, are written; float() reads them
NOT_FINITE = ("nan", "inf", "-inf")
# bytes of a file's name, on all common file systems
LONGEST_NAME = 255


@contextmanager
def whole_path(path, unique=True):
    """A temporary path for a library to write, renamed to ``path`` at the end; a context manager.

    An exception removes the temporary file and leaves ``path`` as it was.

    Arguments
    ---------
    path : str or Path
        The file to write. Its folder must exist.
    unique : bool
        A temporary name that no other writer has. Without it the name depends on ``path`` alone: the next run
        then replaces what a killed run left, which suits folders of many files that one run alone writes.

    Yields
    ------
    Path
        Its suffix is ``.partial``, so a library must be told the file's format.

    Raises
    ------
    OSError
        If the file cannot be written; the error names ``path``.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_path(f"{folder}/sound.raw") as temporary:
    ...         _ = temporary.write_bytes(b"0123")
    ...     os.listdir(folder)
    ['sound.raw']
    """
    path = Path(path)
    temporary = _temporary(path, unique)
    try:
        # the user knows no temporary name
        with naming_file(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        # what went wrong is the error to tell of, not what could not be removed
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def naming_file(path, written=None):
    """Let errors of writing name their file, also of libraries that hide what the system said; a context manager.

    Arguments
    ---------
    path : str or Path
        Name that the user knows.
    written : str or Path, optional
        Name under which it is written.

    Raises
    ------
    OSError
        If the system refused to write, as on a full disk.

    Example
    -------
    >>> try:
    ...     with naming_file("model.ckpt"):
    ...         raise OSError(28, "No space left on device")
    ... except OSError as error:
    ...     error_text(error)
    'model.ckpt: no space left on device'
    """
    written = path if written is None else written
    try:
        yield
    except OSError as error:
        if not error.errno or error.filename not in (None, str(written), written):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except RuntimeError as error:
        # torch and libsndfile do not say why they could not write
        refusal = _try_to_write(written)
        if refusal is None:
            raise
        raise OSError(refusal.errno, os.strerror(refusal.errno), str(path)) from error


def _try_to_write(path):
    """The system's refusal to write more into a file, or None."""
    try:
        with open(path, "ab", buffering=0) as file:
            piece = bytes(1 << 20)
            if file.write(piece) < len(piece):
                file.write(piece)
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def sync_file(path):
    """Wait until a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path):
    """Wait until the names of a folder are on the disk; some file systems cannot say."""
    with suppress(OSError):
        sync_file(path)


def _temporary(path, unique):
    mark = f".{os.urandom(4).hex()}" if unique else ""
    name = f".{path.name}{mark}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}{mark}.partial"
    return path.with_name(name)


@contextmanager
def whole_file(path, mode="w", **options):
    """An open file that gets its name when it is whole; a context manager. See :func:`whole_path`.

    Arguments
    ---------
    path : str or Path
        The file to write. Its folder must exist.
    mode : str
        Mode of :func:`open`: ``w`` or ``wb``.
    **options
        Further arguments of :func:`open`. Text is UTF-8 by default.

    Yields
    ------
    file object

    Raises
    ------
    OSError
        As :func:`whole_path`.
    ValueError
        If a text holds bytes of a name that are not UTF-8.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(f"{folder}/text.txt") as file:
    ...         print("one line", file=file)
    ...     Path(f"{folder}/text.txt").read_text()
    'one line\\n'
    """
    if "b" not in mode:
        options = {"encoding": "utf-8"} | options
    with whole_path(path) as temporary, open(temporary, mode, **options) as file:
        try:
            yield file
        except UnicodeEncodeError as error:
            part = error.object[max(0, error.start - 80) : error.end + 20]
            raise ValueError(
                f"{path}: cannot hold {part!a}, which is not UTF-8 text; rename what is called so"
            ) from error


def write_text(path, text):
    """Write a text as a UTF-8 file, whole or not at all."""
    with whole_file(path) as file:
        file.write(text)


def copy_file(source, target):
    """Copy a file's content, whole or not at all."""
    with whole_path(target) as temporary:
        shutil.copyfile(source, temporary)


def write_json(path, value):
    """Write a value as a JSON file, whole or not at all; a number that is not finite as a text of ``NOT_FINITE``.

    Arguments
    ---------
    path : str or Path
    value : object
        What JSON can hold, and numbers that are not finite.
    """
    value = _finite(value)
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # a name that holds other bytes than text is escaped, and read as the same name
        text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def error_text(error):
    """An error as a sentence for users; a system's error begins with the file and loses its number.

    Example
    -------
    >>> error_text(FileExistsError(17, "File exists", "a.wav")), error_text(ValueError("no"))
    ('a.wav: file exists', 'no')
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    return str(error)


def read_json(path):
    """The value of a JSON file; ``float`` turns the texts of ``NOT_FINITE`` back into numbers.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    object

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not JSON in UTF-8; the error names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({str(error)[:200]})") from error


def write_csv(path, columns, rows):
    """Write a CSV file with a heading, whole or not at all.

    Arguments
    ---------
    path : str or Path
    columns : iterable of str
        Names of the columns.
    rows : iterable of dict or sequence
        A dictionary has exactly the columns as keys, in any order. A sequence has one cell a column.

    Raises
    ------
    ValueError
        If a row has other columns than these.
    """
    columns = list(columns)
    with whole_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            fits = row.keys() == set(columns) if isinstance(row, dict) else len(row) == len(columns)
            if not fits:
                raise ValueError(f"{path}: a row has not the columns {', '.join(columns)}: {row}")
            writer.writerow([row[name] for name in columns] if isinstance(row, dict) else row)


def read_csv(path, columns=(), delimiter=",", skip_spaces=False):
    """Read a CSV file with a heading, strictly: every line is one row with a cell for each column.

    A cell in quotation marks may hold commas, and quotation marks that are doubled. It may not hold a line break:
    an unclosed quotation mark would join two rows in silence. Empty lines are passed over.

    Arguments
    ---------
    path : str or Path
        File in UTF-8, with or without a byte order mark.
    columns : iterable of str
        Columns that the file must have. Others are read too.
    delimiter : str
        Character between two cells.
    skip_spaces : bool
        Whether spaces after a delimiter belong to no cell, as in lists that people write.

    Returns
    -------
    heading : list of str
        Names of the columns.
    rows : iterator of (int, dict of str: str)
        Number of the line, and its cells by column. The file is read row by row.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a column is missing, or a line is no such row. The error names the file and the line; some are raised
        while the rows are read.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(f"{folder}/list.csv", 'id,text\\n1,"yes, now"\\n2,"no\\n')
    ...     _, rows = read_csv(f"{folder}/list.csv", ["id"])
    ...     print(next(rows))
    ...     try:
    ...         next(rows)
    ...     except ValueError as error:
    ...         print(str(error).removeprefix(folder)[:53])
    (2, {'id': '1', 'text': 'yes, now'})
    /list.csv, line 3: a quotation mark is not closed on
    """
    lines = _strict_lines(path, delimiter, skip_spaces)
    _, heading = next(lines, (1, []))
    heading = [name.strip() for name in heading]
    missing = [name for name in columns if name not in heading]
    if missing:
        raise ValueError(
            f"{path}: has no column {', '.join(missing)}; its first line must name "
            f"{', '.join(columns)}"
        )
    twice = {name for name in heading if name and heading.count(name) > 1}
    if twice:
        raise ValueError(f"{path}: the first line names the column {min(twice)} twice")
    return heading, _rows(path, heading, lines)


def _rows(path, heading, lines):
    for number, cells in lines:
        if len(cells) != len(heading):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} cells under {len(heading)} columns; put texts that hold a "
                "comma in double quotes"
            )
        yield number, dict(zip(heading, cells, strict=True))


def _strict_lines(path, delimiter, skip_spaces):
    """The number and the cells of each line that is not empty."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(
            _without_nul(path, file),
            delimiter=delimiter,
            skipinitialspace=skip_spaces,
            strict=True,
        )
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader, None)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {_line_not_utf8(path)}: is not UTF-8 text; save the file as UTF-8"
                ) from error
            except csv.Error as error:
                raise ValueError(_fault(path, number, reader, error)) from error
            if cells is None:
                return
            if reader.line_num > number:
                raise ValueError(_fault(path, number, reader))
            if any(cell.strip() for cell in cells):
                yield number, cells


def _fault(path, number, reader, error=None):
    """What is wrong with the row that begins at a line."""
    if error is None or reader.line_num > number or "end of data" in str(error):
        fault = (
            "a quotation mark is not closed on its line; close it, or double it if it belongs to the text (a cell "
            "cannot hold a line break)"
        )
    elif "expected after" in str(error):
        fault = "text follows a closing quotation mark; double the quotation marks that belong to a text"
    else:
        fault = f"cannot be read as CSV ({error})"
    return f"{path}, line {number}: {fault}"


def _without_nul(path, file):
    """The lines of an open file; a zero byte, as a damaged file has, is an error."""
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: holds a zero byte, so the file is damaged")
        yield line


def _line_not_utf8(path):
    """The number of the first line that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def to_pcm16(waveform):
    """The nearest 16-bit samples of a waveform.

    libsndfile, given the values themselves, rounds down in WAV files: half a step of offset.

    Arguments
    ---------
    waveform : numpy.ndarray
        Any shape, values in -1..1. Values outside are clipped.

    Returns
    -------
    numpy.ndarray
        Same shape, int16.

    Example
    -------
    >>> to_pcm16(np.array([1.6, -1.6]) / 32768).tolist()
    [2, -2]
    """
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)


def write_wav(path, samples, sample_rate, unique=True):
    """Write a 16-bit WAV file, whole or not at all.

    Arguments
    ---------
    path : str or Path
    samples : numpy.ndarray
        (samples,) or (samples, channels), int16; see :func:`to_pcm16`.
    sample_rate : int
        In Hz.
    unique : bool
        See :func:`whole_path`.
    """
    import soundfile

    with whole_path(path, unique) as temporary:
        # as bytes: a name need not be text
        name = os.fsencode(temporary)
        soundfile.write(name, samples, sample_rate, subtype="PCM_16", format="WAV")
