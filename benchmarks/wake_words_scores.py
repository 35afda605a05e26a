"""Misses against false alarms of wake-word spotters: scores of a stream, thresholds, curves and intervals.

An event is right if its middle lies in a clip of its word, or within the tolerance of one. Of several events in one
clip the best counts; the others are neither hits nor false alarms ("doubles"). Every other event is a false alarm,
a wrong word within a clip too.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from mamba_speech.evaluation.bootstrap import mean_interval, paired_difference
from mamba_speech.evaluation.detection import TOLERANCE

# false alarms in the whole background at which misses are read
ALARMS = (0, 3, 7)
# of the thresholds whose differences between words make the curves
CURVE_ALARMS = 3
NEVER = -math.inf


@dataclass
class Scores:
    """One spotter on one stream.

    Attributes
    ----------
    words, voices : list of str
        Of every clip in the stream.
    hits : numpy.ndarray
        (clips,) the best score of an event in the clip, ``-inf`` without one.
    alarms : dict of str to numpy.ndarray
        By word the scores of its false alarms, highest first.
    doubles : int
        Further events in clips.
    hours : float
        Of the stream, clips left out.
    """

    words: list
    voices: list
    hits: np.ndarray
    alarms: dict
    doubles: int = 0
    hours: float = 0.0
    vocabulary: list = field(default_factory=list)

    def shifted(self, thresholds):
        """The scores above each word's threshold: pooled hits (clips,) and false alarms, highest first."""
        hits = self.hits - np.array([thresholds[word] for word in self.words])
        alarms = [found - thresholds[word] for word, found in self.alarms.items()]
        return hits, np.sort(np.concatenate([*alarms, []]))[::-1]

    def of_word(self, word):
        """The same for one word alone."""
        chosen = [index for index, one in enumerate(self.words) if one == word]
        return Scores(
            [word] * len(chosen),
            [self.voices[index] for index in chosen],
            self.hits[chosen],
            {word: self.alarms[word]},
            hours=self.hours,
            vocabulary=[word],
        )


def score_events(events, truth, tolerance=TOLERANCE):
    """Compare a spotter's events with the truth.

    Arguments
    ---------
    events : list of dict
        With ``label``, ``start``, ``end`` and ``score``, all that the spotter can tell.
    truth : dict
        Content of ``events.json``.
    tolerance : float
        Seconds.

    Returns
    -------
    Scores
    """
    clips = truth["events"]
    starts = np.array([clip["start"] for clip in clips]) - tolerance
    ends = np.array([clip["end"] for clip in clips]) + tolerance
    labels = np.array([clip["label"] for clip in clips])
    hits = np.full(len(clips), NEVER)
    alarms, doubles = {word: [] for word in truth["labels"]}, 0
    for event in sorted(events, key=lambda one: -one["score"]):
        middle = (event["start"] + event["end"]) / 2
        near = np.flatnonzero((starts <= middle) & (middle <= ends) & (labels == event["label"]))
        free = [index for index in near if hits[index] == NEVER]
        if free:
            hits[free[0]] = event["score"]
        elif len(near):
            doubles += 1
        else:
            alarms[event["label"]].append(event["score"])
    return Scores(
        labels.tolist(),
        [clip["speaker"] for clip in clips],
        hits,
        {word: np.array(found) for word, found in alarms.items()},
        doubles,
        truth["background_seconds"] / 3600,
        list(truth["labels"]),
    )


def just_above(alarms, allowed):
    """The score of the first false alarm that is one too many; ``-inf`` if there are not so many."""
    return float(alarms[allowed]) if allowed < len(alarms) else NEVER


def missed_at(hits, alarms, allowed):
    """Which clips (clips,) are missed by the lowest threshold with at most so many false alarms."""
    limit = just_above(alarms, allowed)
    return (hits <= limit) | (hits == NEVER)


def equal_thresholds(scores):
    """One threshold for all words, at 0."""
    return dict.fromkeys(scores.vocabulary, 0.0)


def tune(scores, allowed):
    """A threshold for each word, so that fewest clips are missed with at most so many false alarms over all words.

    Arguments
    ---------
    scores : Scores
        Of validation.
    allowed : int
        False alarms in its whole background.

    Returns
    -------
    dict of str to float
        Each midway between the false alarm that it refuses and the next event that it lets through.

    Example
    -------
    >>> hits = np.array([5.0, 1.0, 9.0, 8.0])
    >>> scores = Scores(["a", "a", "b", "b"], list("uvwx"), hits, {"a": np.array([2.0]), "b": np.array([8.5])},
    ...     vocabulary=["a", "b"])
    >>> tune(scores, 0), tune(scores, 1)
    ({'a': 3.5, 'b': 8.75}, {'a': 3.5, 'b': 8.0})
    """
    # by the number of alarms used so far: misses, and each word's share of the alarms
    best = {0: (0, ())}
    for word in scores.vocabulary:
        own = scores.of_word(word)
        costs = [
            int(missed_at(own.hits, own.alarms[word], n).sum())
            for n in range(min(allowed, len(own.alarms[word])) + 1)
        ]
        extended = {}
        for used, (misses, shares) in best.items():
            for n, cost in enumerate(costs[: allowed - used + 1]):
                if (misses + cost) < extended.get(used + n, (math.inf,))[0]:
                    extended[used + n] = (misses + cost, (*shares, n))
        best = extended
    shares = min(best.items(), key=lambda item: (item[1][0], item[0]))[1][1]
    return {
        word: _between(scores.of_word(word), n)
        for word, n in zip(scores.vocabulary, shares, strict=True)
    }


def _between(own, allowed):
    """A threshold midway between the alarm that is one too many and what is let through."""
    (alarms,) = own.alarms.values()
    limit = just_above(alarms, allowed)
    heard = np.concatenate([own.hits, alarms])
    above = heard[(heard > limit) & (heard != NEVER)]
    if not len(above):
        return math.nextafter(limit, math.inf) if limit != NEVER else 0.0
    least = float(above.min())
    return least if limit == NEVER else (limit + least) / 2


def curve(hits, alarms, most=30):
    """Clips missed in %, by the number of false alarms from 0 to ``most``."""
    return [round(100 * float(missed_at(hits, alarms, n).mean()), 3) for n in range(most + 1)]


def interval(missed, voices):
    """Misses in %, averaged over runs, with a 95 % interval over voice groups.

    Arguments
    ---------
    missed : list of numpy.ndarray
        (clips,) of each run.
    voices : list of str

    Returns
    -------
    dict
        ``missed``, ``low``, ``high``, and ``runs``, each run's misses.
    """
    rows = np.array(missed, dtype=float)
    several = len(set(voices)) > 1
    groups = voices if several else None
    found = mean_interval(rows.mean(0), groups=groups, scale=100, student=several)
    return {
        "missed": found.estimate,
        "low": found.low,
        "high": found.high,
        "runs": [100 * float(row.mean()) for row in rows],
    }


def difference(first, second, voices):
    """How many % points more the second misses, with interval and p, over voice groups."""
    several = len(set(voices)) > 1
    found = paired_difference(
        np.mean(first, 0, dtype=float),
        np.mean(second, 0, dtype=float),
        groups=voices if several else None,
        scale=100,
        student=several,
    )
    return found._asdict()


def compare(validation, testing):
    """All figures of one spotter on the streams of one condition.

    Arguments
    ---------
    validation, testing : list of Scores
        One a run of the spotter; thresholds come from validation alone.

    Returns
    -------
    (dict, dict)
        Figures for the JSON, and the missed clips of each run, by which spotters are compared.
    """
    figures, missed = {"hours": testing[0].hours, "clips": len(testing[0].words)}, {}
    voices = testing[0].voices
    ways = {
        "one threshold": [equal_thresholds(one) for one in validation],
        "a threshold a word": [tune(one, CURVE_ALARMS) for one in validation],
    }
    for way, thresholds in ways.items():
        shifted = [one.shifted(own) for one, own in zip(testing, thresholds, strict=True)]
        missed[way] = {n: [missed_at(*one, n) for one in shifted] for n in ALARMS}
        curves = [curve(*one) for one in shifted]
        figures[way] = {
            "at": {n: interval(rows, voices) for n, rows in missed[way].items()},
            "curve": np.mean(curves, 0).round(3).tolist(),
            "curves": curves,
        }
    figures["tuned"] = {n: _tuned(validation, testing, n) for n in ALARMS}
    figures["words"] = {
        word: {
            n: interval([missed_at(own.hits, own.alarms[word], n) for own in ones], ones[0].voices)
            for n in ALARMS
        }
        for word in testing[0].vocabulary
        if (ones := [one.of_word(word) for one in testing])[0].words
    }
    figures["doubles"] = [one.doubles for one in testing]
    return figures, missed


def _tuned(validation, testing, allowed):
    """Misses and false alarms of the test at the thresholds that allow so many false alarms in validation."""
    missed, alarms, thresholds = [], [], []
    for known, tested in zip(validation, testing, strict=True):
        thresholds.append(tune(known, allowed))
        hits, false = tested.shifted(thresholds[-1])
        missed.append(hits < 0)
        alarms.append(int((false >= 0).sum()))
    found = interval(missed, testing[0].voices)
    return found | {
        "false_alarms": alarms,
        "false_alarms_per_hour": float(np.mean(alarms) / testing[0].hours),
        "validation_hours": validation[0].hours,
        "thresholds": thresholds,
    }
