"""How many keywords of a recording are missed, and how many are reported falsely, threshold by threshold."""

from dataclasses import dataclass

from mamba_speech.files import read_json

# seconds from a keyword within which the middle of its event may lie
TOLERANCE = 0.25
# most thresholds of a curve with a refractory time; events are chosen anew for each of them
POINTS = 200


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
        found = read_json(path)
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


def error_curve(events, reference, seconds, tolerance=TOLERANCE, refractory=0.0):
    """Misses and false alarms by threshold.

    An event is right if its middle lies within a keyword of its label, or ``tolerance`` seconds from it, and no more
    confident event has taken that keyword; any other event is a false alarm.

    Arguments
    ---------
    events : list of Event
        The events found with threshold 0.
    reference : list of Event
        The keywords that the model knows.
    seconds : float
        Length of the recording.
    tolerance : float
        Seconds.
    refractory : float
        Seconds after a reported event in which no other is. What is reported then depends on the threshold, and the
        curve has at most :data:`POINTS` of them.

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
    if refractory:
        return _refractory_curve(events, reference, seconds, tolerance, refractory)
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


def after_rest(events, refractory):
    """The events that are reported if each silences what follows it for so many seconds.

    Example
    -------
    >>> events = [Event("yes", start, start + 1, 0.9) for start in (0.0, 1.5, 2.5)]
    >>> [event.start for event in after_rest(events, 2.0)]
    [0.0, 2.5]
    """
    kept = []
    for event in sorted(events, key=lambda one: one.middle):
        if not kept or event.middle >= kept[-1].middle + refractory:
            kept.append(event)
    return kept


def _refractory_curve(events, reference, seconds, tolerance, refractory):
    confidences = sorted({event.confidence for event in events}, reverse=True)
    # the lowest among them
    chosen = confidences[:: -(-len(confidences) // POINTS) or 1] + confidences[-1:]
    points = [_point(1.0, 0, len(reference), 0, seconds)]
    for threshold in chosen:
        kept = after_rest([one for one in events if one.confidence >= threshold], refractory)
        points.append(
            error_curve(kept, reference, seconds, tolerance)[-1] | {"threshold": threshold}
        )
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
    """The curve's point for a threshold: the point of the least confident event that it lets through."""
    return next((one for one in reversed(curve) if one["threshold"] >= threshold), curve[0])


def miss_rate_at(curve, false_alarms_per_hour):
    """The least miss rate (0 to 1) of a curve with at most so many false alarms an hour."""
    allowed = (one for one in curve if one["false_alarms_per_hour"] <= false_alarms_per_hour)
    return min(one["miss_rate"] for one in allowed)
