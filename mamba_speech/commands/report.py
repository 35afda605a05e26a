"""What a test on a list gives: figures with intervals, a row an item, and the items that failed."""

from dataclasses import dataclass, field
from typing import NamedTuple

from mamba_speech.evaluation.bootstrap import mean_interval

# fewer speakers are too few to draw from
LEAST_SPEAKERS = 6


class Figure(NamedTuple):
    """A figure with the ends of its 95 % interval, where it has one, and its unit."""

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "%"


@dataclass
class Report:
    """The test of a run on a list.

    Attributes
    ----------
    items : str
        What is counted: utterances, clips, mixtures or trials.
    figures : dict of str: Figure
        By name, the foremost first.
    rows : list of dict
        One a tested item, by columns.
    errors : list of str
        A sentence for each item that could not be tested.
    notes : dict
        Whatever else is worth telling, by name.
    """

    items: str
    figures: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)


def ratio(values, sizes, speakers, scale=100.0, unit="%"):
    """The ratio of two sums over items as a figure; its interval draws speakers where there are enough.

    Arguments
    ---------
    values, sizes : list of float
        One an item; ``sizes`` may be None, where each counts once.
    speakers : list of str or None
        Speaker of each item.
    scale : float
    unit : str

    Returns
    -------
    (Figure, str)
        The figure, and what was drawn.

    Example
    -------
    >>> found, drawn = ratio([1, 0, 1, 0], [4, 4, 4, 4], [None] * 4)
    >>> found.value, drawn
    (12.5, 'items')
    """
    known = None not in speakers and len(set(speakers)) >= LEAST_SPEAKERS
    groups = {"groups": speakers, "student": True} if known else {}
    found = mean_interval(values, sizes, scale=scale, **groups)
    drawn = "speakers" if known else "items"
    return Figure(found.estimate, found.low, found.high, unit), drawn
