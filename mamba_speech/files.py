"""Writing files whole or not at all, and JSON."""

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
