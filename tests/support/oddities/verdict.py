"""Comparison of what was declared of an input with what became of it."""

import numpy as np

from tests.support.oddities.inputs import SAME, TRAINING, parts_of

# a source's least difference is one step of 16 bits, an embedding's a rounding error
TOLERANCE = {"separate": 3e-4, "embed": 1e-4}


def disagreement(odd, consumer, found, plain, path):
    """What is not as declared, as a sentence; None if nothing is.

    Arguments
    ---------
    odd : Odd
    consumer : str
    found, plain : Found
        What became of the input, and of the plain recording.
    path : Path
        The input.
    """
    kind, words, warnings = parts_of(odd.outcome(consumer))
    if kind in ("error", "skipped"):
        if found.error is None:
            return f"has a result and no error ({words!r})"
        if words not in found.error:
            return f"the error is {found.error!r} and lacks {words!r}"
        if consumer != TRAINING and not found.error.startswith(f"{path}: "):
            return f"the error does not begin with the file's name: {found.error!r}"
        return None
    if found.error is not None:
        return f"an error: {found.error!r}"
    if found.warnings != warnings:
        return f"the warnings are {found.warnings or 'none'} and not {warnings or 'none'}"
    if found.result is None:
        return "no result"
    if kind == SAME and not _alike(consumer, found.result, plain.result):
        return f"the result is not the plain recording's: {found.result!r:.100}"
    return None


def _alike(consumer, result, plain):
    if consumer not in TOLERANCE:
        return result == plain
    return result.shape == plain.shape and np.abs(result - plain).max() <= TOLERANCE[consumer]
