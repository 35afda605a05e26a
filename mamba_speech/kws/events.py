"""Events in a stream of probabilities: which keyword is said when.

Smoothing, a local maximum in time, and a threshold turn the course of the probabilities into events (Chen, Parada and
Heigold, "Small-footprint keyword spotting using deep neural networks", ICASSP 2014, section 2.3).
"""

import torch

from mamba_speech.evaluation.detection import Event

THRESHOLD, SMOOTHING, SUPPRESSION, REFRACTORY = 0.5, 0.2, 0.75, 0.0
# most seconds of smoothing and of suppression: every moment within them is looked at again for each new one
LONGEST = 60.0
# classes that are no words: what keeps a spotter silent
UNKNOWN, SILENCE = "_unknown_", "_silence_"


def absent_classes(labels):
    """The sentence that a model without a class for other speech or for silence deserves; ``None`` with both.

    Such a model takes whatever it hears for one of its words.

    Example
    -------
    >>> absent_classes(["yes", "_unknown_", "_silence_"]) is None
    True
    >>> absent_classes(["yes", "_silence_"]).partition(":")[0]
    'the model has no class _unknown_ and takes other speech for its words'
    """
    absent = [label for label in (UNKNOWN, SILENCE) if label not in labels]
    if not absent:
        return None
    taken = {UNKNOWN: "other speech", SILENCE: "silence and noise"}
    options = {UNKNOWN: "--unknown_percentage 50", SILENCE: "--silence_percentage 20"}
    return (
        f"the model has no class {' and no class '.join(absent)} and takes "
        f"{' and '.join(taken[label] for label in absent)} for its words: train one with the words listed in --words, "
        f"{' and '.join(options[label] for label in absent)}"
    )


class EventFinder:
    """From probabilities in the order of time to events, with a delay of ``suppression`` seconds.

    An event is a moment at which a keyword's smoothed probability is the highest. It is compared with every keyword's
    within ``suppression`` seconds on both sides. The threshold does not change which moments these are. With
    ``refractory``, a reported event also silences what follows it.

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
    refractory : float
        Seconds after an event in which no other is reported. It adds no delay, unlike ``suppression``.

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
        refractory=REFRACTORY,
    ):
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1; got {threshold}")
        if not (0 <= smoothing <= LONGEST and 0 < suppression <= LONGEST):
            raise ValueError(
                f"smoothing must be from 0 to {LONGEST:g} seconds, and suppression more than 0 and at most as much; "
                f"got {smoothing} and {suppression}"
            )
        if not 0 <= refractory < float("inf"):
            raise ValueError(f"refractory must be 0 seconds or more; got {refractory}")
        self.labels, self.half = list(labels), window_seconds / 2
        self.keywords = [i for i, label in enumerate(self.labels) if not label.startswith("_")]
        if not self.keywords:
            raise ValueError("the model knows no keyword: all its classes begin with _")
        self.threshold, self.smoothing, self.suppression = threshold, smoothing, suppression
        self.refractory, self._last = refractory, -float("inf")
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
            if hidden or height < self.threshold:
                continue
            if peak >= self._last + self.refractory:
                self._last = peak
                start, end = max(0.0, peak - self.half), peak + self.half
                label = self.labels[label]
                events.append(Event(label, round(start, 3), round(end, 3), round(height, 7)))
        hidden = False
        for entry in self._best:
            if entry[1] >= score:
                # of equals the earlier one stands
                hidden = True
            else:
                entry[3] = True
        self._best.append([time, score, index, hidden])
        return events
