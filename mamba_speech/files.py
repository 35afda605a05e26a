"""Files written whole or not at all: text, JSON, CSV, WAV, copies, and whatever a library writes.

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
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and str(error.filename) == str(temporary):
            # the user knows no temporary name
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        # what went wrong is the error to tell of, not what could not be removed
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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
        yield file


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
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def error_text(error):
    """An error as a sentence for users: that of the system begins with the file, without its number.

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
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


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
        soundfile.write(temporary, samples, sample_rate, subtype="PCM_16", format="WAV")
