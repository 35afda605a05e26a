"""What a run's figures are written as: a JSON file that is never half there, and a table for the terminal."""

import json
import math
import os
from pathlib import Path

# how numbers that are not finite, for which JSON has no word, are written; float() reads them
NOT_FINITE = ("nan", "inf", "-inf")


def write_json(path, value):
    """Write a value as a JSON file, whole or not at all; a number that is not finite as a text of ``NOT_FINITE``.

    Arguments
    ---------
    path : str or Path
    value : object
        What JSON can hold, and numbers that are not finite.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    partial = Path(path).with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def as_text(table):
    """Rows as text with aligned columns, the names of the columns first.

    Arguments
    ---------
    table : list of dict
        At least one row; all have the same keys.

    Returns
    -------
    str

    Example
    -------
    >>> print(as_text([{"system": "small", "WER %": 9.5}, {"system": "large", "WER %": 10}]))
    system  WER %
    small   9.5
    large   10
    """
    lines = [list(table[0]), *([str(value) for value in row.values()] for row in table)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_markdown(table):
    """Rows as a table of markdown.

    Arguments
    ---------
    table : list of dict
        At least one row; all have the same keys.

    Returns
    -------
    str

    Example
    -------
    >>> print(as_markdown([{"system": "small", "WER %": 9.5}]))
    | system | WER % |
    | --- | --- |
    | small | 9.5 |
    """
    lines = [list(table[0]), ["---"] * len(table[0])]
    lines += [[str(value).replace("|", "\\|") for value in row.values()] for row in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
