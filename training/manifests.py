"""Manifests of a training: CSV files that the preparation wrote, read strictly.

SpeechBrain's own reader takes an unclosed quotation mark for a cell of several lines, and joins two utterances.
"""

from speechbrain.dataio.dataset import DynamicItemDataset

from mamba_speech.files import error_text, read_csv


def read_manifest(path, columns=()):
    """The rows of a manifest by ``ID``, as SpeechBrain's ``load_data_csv`` gives them.

    Arguments
    ---------
    path : str or Path
    columns : iterable of str
        Columns that the manifest must have besides ``ID`` and ``duration``.

    Returns
    -------
    dict of str: dict
        Each row without its ``ID``. The ``duration``, in seconds, is a float.

    Raises
    ------
    SystemExit
        With one sentence that names the file and the line, if it is no such manifest, or lists nothing.
    """
    # manifests of files alone, as earlier versions wrote them, have neither
    whole = {name: "" for name in ("start", "stop")}
    found = {}
    try:
        for line, row in read_csv(path, ("ID", "duration", *columns))[1]:
            name = row.pop("ID")
            if name in found:
                raise ValueError(f"{path}, line {line}: {name} stands there twice")
            row["duration"] = _seconds(row["duration"], f"{path}, line {line}")
            row = whole | row
            part(row["start"], row["stop"], f"{path}, line {line}")
            found[name] = row
    except (OSError, ValueError) as error:
        raise SystemExit(error_text(error)) from error
    if not found:
        raise SystemExit(f"{path}: lists nothing; run once without --skip_prep")
    return found


def open_manifest(path, columns=()):
    """A SpeechBrain data set of the rows of a manifest; see :func:`read_manifest`."""
    return DynamicItemDataset(read_manifest(path, columns))


def part(start, stop, place="the manifest"):
    """The part of a file that a row of a manifest means.

    Arguments
    ---------
    start, stop : str
        First sample and end; empty for the file's own.
    place : str
        Place of the row, for errors.

    Returns
    -------
    (int, int or None)
        Arguments of :func:`mamba_speech.audio.load_audio`.

    Raises
    ------
    ValueError
        If these are no whole numbers, or in the wrong order.

    Example
    -------
    >>> part("", ""), part("800", "1600")
    ((0, None), (800, 1600))
    """
    try:
        first, last = int(start or 0), int(stop) if stop else None
    except ValueError:
        first = last = -1
    if first < 0 or last is not None and last <= first:
        raise ValueError(
            f"{place}: start and stop must be samples, the first before the second; got {start!r} and {stop!r}"
        )
    return first, last


def _seconds(text, place):
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{place}: the duration must be seconds above 0, not {text!r}")
    return seconds
