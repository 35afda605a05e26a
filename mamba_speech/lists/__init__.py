"""Users' lists of recordings: tables, JSON lists of NeMo and lhotse, and Kaldi folders, read the same everywhere.

The preparation of one's own speech and all commands read lists through :func:`read_list`. The project's own files are
read by :func:`mamba_speech.files.read_csv`, which forgives nothing.
"""

import os
from pathlib import Path

from mamba_speech.lists.encodings import read_lines
from mamba_speech.lists.json_rows import read_json_list
from mamba_speech.lists.kaldi import SCRIPT, is_kaldi_folder, read_kaldi
from mamba_speech.lists.places import Locator
from mamba_speech.lists.rows import NAMES, ListError, ListRow
from mamba_speech.lists.tables import DELIMITERS, read_table

__all__ = ["NAMES", "SUFFIXES", "ListError", "ListRow", "is_list", "read_list"]

_JSON = (".json", ".jsonl", ".ndjson")
SUFFIXES = (*DELIMITERS, *_JSON)
# how files begin that are recordings, whatever their names
_AUDIO = (b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3", b"caff", b".snd")


def is_list(path):
    """Whether a path means a list of recordings: a file with the ending of one, or a Kaldi folder.

    Arguments
    ---------
    path : str or Path

    Example
    -------
    >>> is_list("nowhere.csv"), is_list(".")
    (False, False)
    """
    try:
        if os.path.isdir(path):
            return is_kaldi_folder(path)
        if os.path.basename(path) != SCRIPT and _suffix(path) not in SUFFIXES:
            return False
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return not file.read(4).startswith(_AUDIO)
    except (OSError, ValueError):
        return False


def read_list(path, needed=("path",)):
    """The rows of a list, in its order.

    Arguments
    ---------
    path : str or Path
        A table (``.csv``, ``.tsv``, ``.psv``, ``.txt``, ``.lst``), a JSON list (``.jsonl``, ``.json``), either
        compressed (``.gz``) or not; or a Kaldi folder, or its ``wav.scp``. Relative paths in a list begin at its own
        folder, then at the current one.
    needed : iterable of str
        Keys of ``NAMES`` that a table's columns, or the keys of a JSON object, must have.

    Yields
    ------
    ListRow
        A bad row has a ``fault`` and does not end the list.

    Raises
    ------
    OSError
        If the list cannot be read.
    ListError
        If nothing can be made of the list; the error is raised while the rows are read.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "list.tsv").write_text('path\\tsentence\\na.mp3\\t"Yes, he said.\\nb.mp3\\n')
    >>> [(row.place, row.text, row.fault) for row in read_list(folder / "list.tsv")]
    [('line 2', '"Yes, he said.', None), ('line 3', None, '1 cell under 2 columns')]
    """
    path = Path(path)
    if path.name == SCRIPT:
        path = path.parent
    if os.path.isdir(path):
        if not is_kaldi_folder(path):
            raise ListError(f"{path}: a folder without {SCRIPT}, so it is no list of recordings")
        return read_kaldi(path, Locator(path))
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise ListError(
            f"{path}: a list must end in one of {', '.join(SUFFIXES)}, or be a Kaldi folder"
        )
    lines, locate = read_lines(path), Locator(path.parent)
    if suffix in _JSON:
        return read_json_list(path, lines, locate, needed)
    return read_table(path, lines, locate, suffix, needed)


def _suffix(path):
    suffixes = [one.lower() for one in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
