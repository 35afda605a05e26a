"""What is odd about a recording that can be used all the same: a kind, and a sentence that names the file."""

import contextlib
import contextvars
import logging
from collections import Counter
from typing import NamedTuple

logger = logging.getLogger(__name__)

TRUNCATED, UNKNOWN_LENGTH = "truncated", "unknown_length"
OPPOSITE_CHANNELS, SILENT_CHANNEL = "opposite_channels", "silent_channel"
INTEGER_SCALE = "integer_scale"
PART_LEFT_OUT = "part_left_out"

_collected = contextvars.ContextVar("collected", default=None)
# kinds that this process has logged once
_logged = set()


class AudioWarning(NamedTuple):
    """Something odd about a recording.

    Attributes
    ----------
    kind : str
        ``truncated``, ``unknown_length``, ``opposite_channels``, ``silent_channel``, ``integer_scale`` or
        ``part_left_out``.
    text : str
        One sentence that names the file.
    """

    kind: str
    text: str


@contextlib.contextmanager
def collected_warnings(found=None):
    """Collect the warnings of the recordings that are read inside, by :func:`give_warnings`; each once.

    Arguments
    ---------
    found : list of AudioWarning, optional
        To which they are added; a new list by default.

    Yields
    ------
    list of AudioWarning
        Grows while recordings are read.

    Example
    -------
    >>> with collected_warnings() as found:
    ...     give_warnings([AudioWarning("truncated", "a.wav: is cut off")])
    >>> found[0].kind
    'truncated'
    """
    found = [] if found is None else found
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def give_warnings(warnings):
    """Hand warnings to :func:`collected_warnings`; outside of it, log the first of each kind.

    Arguments
    ---------
    warnings : iterable of AudioWarning
    """
    found = _collected.get()
    if found is not None:
        found.extend(one for one in warnings if one not in found)
        return
    for one in warnings:
        if one.kind not in _logged:
            _logged.add(one.kind)
            logger.warning("%s (said once for all recordings that are like this)", one.text)


def count_kinds(warnings):
    """How many warnings there are of each kind, as text.

    Arguments
    ---------
    warnings : iterable of AudioWarning

    Example
    -------
    >>> count_kinds([AudioWarning("truncated", "a.wav: is cut off")] * 2)
    '2 truncated'
    """
    counts = Counter(one.kind for one in warnings)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
