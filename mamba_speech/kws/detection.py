"""Events in a stream of probabilities, and how many keywords they miss or report falsely.

Which word is said when follows from the course of the probabilities by smoothing, a local maximum in time, and a
threshold (Chen, Parada and Heigold, "Small-footprint keyword spotting using deep neural networks", ICASSP 2014,
section 2.3).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from mamba_speech.figures import BLUE, picture

THRESHOLD, SMOOTHING, SUPPRESSION = 0.5, 0.2, 0.75
# how far from a keyword the middle of its event may lie
TOLERANCE = 0.25


@dataclass(frozen=True)
class Event:
    """A keyword that was heard.

    Attributes
    ----------
    label : str
    start, end : float
        Seconds; the part of the recording that the model took for the word.
    confidence : float
        The smoothed probability at its peak.
    """

    label: str
    start: float
    end: float
    confidence: float

    @property
    def middle(self):
        """Seconds."""
        return (self.start + self.end) / 2


class EventFinder:
    """From probabilities in the order of time to events, with a delay of ``suppression`` seconds.

    An event is a moment at which a keyword's smoothed probability is higher than that of every keyword within
    ``suppression`` seconds on both sides. Which moments these are does not depend on the threshold.

    Arguments
    ---------
    labels : list of str
        The classes; those that begin with ``_`` are no keywords.
    window_seconds : float
        What the model hears at a time, for the events' start and end.
    threshold : float
        Least smoothed probability.
    smoothing : float
        Seconds over which probabilities are averaged; 0 takes them as they are.
    suppression : float
        Seconds.

    Raises
    ------
    ValueError
        If no class is a keyword, or a number is outside its range.

    Example
    -------
    >>> import torch
    >>> finder = EventFinder(["no", "yes", "_unknown_"], window_seconds=1.0, smoothing=0.0)
    >>> times = torch.arange(40) / 10
    >>> probabilities = torch.tensor([0.0, 0.0, 1.0]).repeat(40, 1)
    >>> probabilities[20] = torch.tensor([0.1, 0.9, 0.0])
    >>> [(event.label, event.start, event.end) for event in finder(times, probabilities)]
    [('yes', 1.5, 2.5)]
    """

    def __init__(
        self,
        labels,
        window_seconds,
        threshold=THRESHOLD,
        smoothing=SMOOTHING,
        suppression=SUPPRESSION,
    ):
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1; got {threshold}")
        if smoothing < 0 or suppression <= 0:
            raise ValueError(
                f"smoothing must be 0 or more and suppression more than 0 seconds; got {smoothing} and {suppression}"
            )
        self.labels, self.half = list(labels), window_seconds / 2
        self.keywords = [i for i, label in enumerate(self.labels) if not label.startswith("_")]
        if not self.keywords:
            raise ValueError("the model knows no keyword: all its classes begin with _")
        self.threshold, self.smoothing, self.suppression = threshold, smoothing, suppression
        self._recent = []  # (time, probabilities) to average
        self._best = []  # [time, score, class, whether a higher one is near]

    def __call__(self, times, probabilities):
        """Events that are certain once these probabilities are known.

        Arguments
        ---------
        times : torch.Tensor
            (n,) seconds, ascending, later than those before.
        probabilities : torch.Tensor
            (n, classes)

        Returns
        -------
        list of Event
        """
        events = []
        chosen = probabilities[:, self.keywords].double()
        for time, row in zip(times.tolist(), chosen, strict=True):
            self._recent.append((time, row))
            while time - self._recent[0][0] > self.smoothing + 1e-9:
                self._recent.pop(0)
            score, index = torch.stack([one for _, one in self._recent]).mean(0).max(0)
            # the average is of the time behind: its middle is where the word is
            middle = (self._recent[0][0] + time) / 2
            events += self._advance(middle, float(score), self.keywords[int(index)])
        return events

    def finish(self):
        """The events that only the end of the stream makes certain."""
        return self._advance(float("inf"), -1.0, self.keywords[0])

    def _advance(self, time, score, index):
        """Take one more moment; what lies ``suppression`` behind it is decided."""
        events = []
        while self._best and self._best[0][0] < time - self.suppression:
            peak, height, label, hidden = self._best.pop(0)
            if not hidden and height >= self.threshold:
                start, end = max(0.0, peak - self.half), peak + self.half
                label = self.labels[label]
                events.append(Event(label, round(start, 3), round(end, 3), round(height, 4)))
        hidden = False
        for entry in self._best:
            if entry[1] >= score:
                # of equals the earlier one stands
                hidden = True
            else:
                entry[3] = True
        self._best.append([time, score, index, hidden])
        return events


def read_reference(path):
    """The keywords of a recording, as `python -m data_prep.spoken --layout stream` writes them.

    Arguments
    ---------
    path : str or Path
        JSON with ``events``, a list of objects with ``start`` and ``end`` in seconds and ``label``, and ``seconds``
        of the recording.

    Returns
    -------
    (list of Event, float)
        The keywords, with confidence 1, and the recording's seconds.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, is not such a list, or names no keyword.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        events = [
            Event(str(one["label"]), float(one["start"]), float(one["end"]), 1.0)
            for one in found["events"]
        ]
        seconds = float(found["seconds"])
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file; give the events of the recording"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: must hold `seconds` and `events`, each with start, end and label ({error!r})"
        ) from error
    if not events or seconds <= 0 or any(one.start > one.end for one in events):
        raise ValueError(f"{path}: holds no event, or an event that ends before it starts")
    return events, seconds


def error_curve(events, reference, seconds, tolerance=TOLERANCE):
    """Misses and false alarms by threshold.

    An event is right if its middle lies within a keyword of its label, or ``tolerance`` seconds from it, and no more
    confident event has taken that keyword; any other event is a false alarm.

    Arguments
    ---------
    events : list of Event
        As found with threshold 0.
    reference : list of Event
        The keywords that the model knows.
    seconds : float
        Of the recording.
    tolerance : float

    Returns
    -------
    list of dict
        ``threshold``, ``miss_rate`` (0 to 1), ``false_alarms_per_hour``, ``hits``, ``misses`` and
        ``false_alarms``, from the highest threshold to the lowest; first the point at which nothing is reported.

    Raises
    ------
    ValueError
        If there is no keyword, or the recording has no length.
    """
    if not reference or seconds <= 0:
        raise ValueError("misses are counted on a recording with at least one keyword")
    hits = false_alarms = 0
    free = list(reference)
    points = [_point(1.0, 0, len(reference), 0, seconds)]
    for event in sorted(events, key=lambda one: -one.confidence):
        near = [
            one
            for one in free
            if one.label == event.label
            and one.start - tolerance <= event.middle <= one.end + tolerance
        ]
        if near:
            free.remove(min(near, key=lambda one: abs(one.middle - event.middle)))
            hits += 1
        else:
            false_alarms += 1
        point = _point(event.confidence, hits, len(reference), false_alarms, seconds)
        if len(points) > 1 and point["threshold"] == points[-1]["threshold"]:
            # events of one confidence come and go together; the first point stays even at confidence 1
            points.pop()
        points.append(point)
    return points


def _point(threshold, hits, keywords, false_alarms, seconds):
    return {
        "threshold": threshold,
        "miss_rate": 1 - hits / keywords,
        "false_alarms_per_hour": 3600 * false_alarms / seconds,
        "hits": hits,
        "misses": keywords - hits,
        "false_alarms": false_alarms,
    }


def at_threshold(curve, threshold):
    """The curve's point for a threshold: that of the least confident event that it lets through."""
    return next((one for one in reversed(curve) if one["threshold"] >= threshold), curve[0])


def draw_curve(curve, threshold, png):
    """Draw the miss rate over false alarms an hour.

    Arguments
    ---------
    curve : list of dict
        Of :func:`error_curve`.
    threshold : float
        Marked in the picture.
    png : str or Path

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    chosen = at_threshold(curve, threshold)
    with picture(png, (6, 4)) as figure:
        axes = figure.add_subplot(xlabel="false alarms an hour", ylabel="keywords missed in %")
        rates = [point["false_alarms_per_hour"] for point in curve]
        misses = [100 * point["miss_rate"] for point in curve]
        axes.step(rates, misses, where="post", color=BLUE)
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlim=(0, 1.2 * max(2.0, *rates)), ylim=(0, 100))
        axes.spines["right"].set_visible(False)
        rate, missed = chosen["false_alarms_per_hour"], 100 * chosen["miss_rate"]
        axes.plot(rate, missed, "o", color=BLUE, clip_on=False)
        axes.set_title(
            f"{chosen['hits'] + chosen['misses']} keywords\nthreshold {threshold:g}: "
            f"{missed:.1f} % missed, {rate:.1f} false alarms an hour"
        )
