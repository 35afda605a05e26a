"""Errors of speaker verification: equal error rate, minimum detection cost, and a check of the list of trials.

A trial is accepted if its score is above the threshold. A rejected target is a miss, and an accepted impostor is a
false alarm. All operating points of a system follow from one sort, in which equal scores move together.

Sources: the definitions in SpeechBrain's ``metric_stats``, whose figures these equal; Martin and Przybocki, "The NIST
1999 speaker recognition evaluation", Digital Signal Processing 10 (2000), for the detection cost.
"""

from copy import copy
from typing import NamedTuple

import numpy as np

from mamba_speech.evaluation.item_files import read_items
from mamba_speech.files import write_csv

TRIAL_COLUMNS = ("trial", "label", "enrolment", "test", "score")
# sampling errors from 50 % at which a permuted system's EER is beyond chance
CHANCE = 6


class ScoredTrial(NamedTuple):
    """A trial of a list with its score; its label is 1 for a target and 0 for an impostor."""

    label: int
    enrolment: str
    test: str
    score: float


class TrialErrors:
    """Misses and false alarms of one system at every threshold.

    The scores are sorted once, also for many sets of weights. Errors are counted in whole numbers, so rates are exact.

    Arguments
    ---------
    labels : array of int
        (trials,), 1 for a target and 0 for an impostor.
    scores : array of float
        (trials,), higher for the same speaker.

    Attributes
    ----------
    thresholds : array of float
        (points,) distinct scores, from the lowest on; a score must be above the threshold.
    missed, refused : array of int
        (points,) targets and impostors that each threshold rejects.
    targets, impostors : int
        Number of trials, or the sum of their weights.

    Raises
    ------
    ValueError
        If the two differ in length, a score is not finite, a label is neither 0 nor 1, or one class has no trial.

    Example
    -------
    >>> errors = TrialErrors([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.3, 0.4, 0.2, 0.1])
    >>> rate, threshold = errors.eer()
    >>> round(rate, 3), round(threshold, 2)
    (0.333, 0.35)
    >>> errors.weighted(np.array([1, 1, 0, 1, 1, 1])).eer()[0]
    0.0
    """

    def __init__(self, labels, scores):
        labels, scores = check_trials(labels, scores)
        self._order = np.argsort(scores, kind="stable")
        scores = scores[self._order]
        self._target = labels[self._order] == 1
        # the last trial of each score: a threshold there rejects all trials of this score
        self._last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        self.thresholds = scores[self._last]
        self._count(np.cumsum(self._target), np.arange(1, len(scores) + 1))

    def _count(self, missed, rejected):
        """Set the counts from running sums over the sorted trials, (trials,) each."""
        self.targets, total = int(missed[-1]), int(rejected[-1])
        self.impostors = total - self.targets
        if len(self._last) < len(missed):
            missed, rejected = missed[self._last], rejected[self._last]
        self.missed, self.refused = missed, rejected - missed

    def weighted(self, weights):
        """The same scores with trials that count more than once, or not at all.

        Arguments
        ---------
        weights : array of int
            (trials,) in the order of the labels.

        Returns
        -------
        TrialErrors or None
            None if no target, or no impostor, has a weight.
        """
        weights = weights[self._order]
        found = copy(self)
        found._count(np.cumsum(weights * self._target), np.cumsum(weights))
        return found if found.targets and found.impostors else None

    def eer(self):
        """Equal error rate and its threshold; see :func:`eer`."""
        # (miss rate - false alarm rate + 1) * targets * impostors, which grows with the threshold
        rising = self.missed * self.impostors + self.refused * self.targets
        level = self.targets * self.impostors
        point = int(np.searchsorted(rising, level))
        # the lower threshold where two are equally close
        if point and level - rising[point - 1] <= rising[point] - level:
            point = int(np.searchsorted(rising, rising[point - 1]))
        miss, false_alarm = self._rates_at(point)
        return (miss + false_alarm) / 2, self._threshold(point)

    def min_dcf(self, p_target=0.01, c_miss=1.0, c_fa=1.0, *, normalise=False):
        """Minimum detection cost and its threshold; see :func:`min_dcf`."""
        miss_cost, alarm_cost = c_miss * p_target, c_fa * (1 - p_target)
        # above the cost of accepting every trial
        cost = self.missed * (miss_cost / self.targets)
        cost -= self.refused * (alarm_cost / self.impostors)
        point = int(np.argmin(cost))
        miss, false_alarm = self._rates_at(point)
        best, threshold = miss_cost * miss + alarm_cost * false_alarm, self._threshold(point)
        if alarm_cost < best:
            best, threshold = alarm_cost, float(np.nextafter(self.thresholds[0], -np.inf))
        return best / (min(miss_cost, alarm_cost) if normalise else 1), threshold

    def rates(self):
        """Miss and false alarm rates, (points,) each, from the lowest threshold on."""
        return self.missed / self.targets, 1 - self.refused / self.impostors

    def _rates_at(self, point):
        alarms = self.impostors - int(self.refused[point])
        return int(self.missed[point]) / self.targets, alarms / self.impostors

    def _threshold(self, point):
        """Middle between a score and the next: all thresholds between them reject the same trials."""
        score = self.thresholds[point]
        if point + 1 == len(self.thresholds):
            return float(score)
        above = self.thresholds[point + 1]
        middle = score + (above - score) / 2
        return float(middle if middle < above else score)


def check_trials(labels, scores):
    """Labels and scores as arrays, (trials,) each.

    Raises
    ------
    ValueError
        As :class:`TrialErrors`.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"each trial needs one label and one score: {labels.size} labels, {scores.size} scores"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("a trial's label must be 1 (one speaker) or 0 (two speakers)")
    targets = int(np.count_nonzero(labels))
    if targets in (0, len(labels)):
        kind = "impostor" if targets else "target"
        raise ValueError(
            f"the list has no {kind} trial among its {len(labels)}, so it has no error rate; "
            "give trials of both kinds"
        )
    broken = int(np.count_nonzero(~np.isfinite(scores)))
    if broken:
        raise ValueError(f"{broken} of {len(scores)} trials have a score that is no finite number")
    return labels, scores


def eer(target_scores, impostor_scores):
    """Equal error rate: the errors at the threshold where misses and false alarms are as frequent.

    The rate is the mean of the miss rate and the false alarm rate where these two are closest. Of two thresholds that
    are equally close, it takes the lower. SpeechBrain's ``EER`` does the same, apart from its rounding to float32.

    Arguments
    ---------
    target_scores, impostor_scores : array of float
        (targets,) and (impostors,).

    Returns
    -------
    (float, float)
        Rate from 0 to 1, and the threshold, in the middle between two scores. A higher score is accepted.

    Raises
    ------
    ValueError
        If one of them is empty, or holds a score that is not finite.

    Example
    -------
    >>> eer([0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3])[0]
    0.0
    >>> eer([0.5, 0.5], [0.5, 0.5, 0.5])
    (0.5, 0.5)
    """
    return _errors(target_scores, impostor_scores).eer()


def min_dcf(
    target_scores, impostor_scores, p_target=0.01, c_miss=1.0, c_fa=1.0, *, normalise=False
):
    """Minimum of the detection cost over all thresholds.

    The cost is ``c_miss * p_target * misses + c_fa * (1 - p_target) * false alarms``. Papers divide it by the cost of
    the better constant decision, so that a system without use has cost 1; SpeechBrain's ``minDCF`` does not.

    Arguments
    ---------
    target_scores, impostor_scores : array of float
        (targets,) and (impostors,).
    p_target : float
        Prior probability of a target, between 0 and 1.
    c_miss, c_fa : float
        Costs of a miss and of a false alarm.
    normalise : bool
        Whether to divide as papers do.

    Returns
    -------
    (float, float)
        Cost, and the threshold as :func:`eer` gives it.

    Raises
    ------
    ValueError
        As :func:`eer`.

    Example
    -------
    >>> cost, _ = min_dcf([0.9, 0.8, 0.7, 0.3], [0.4, 0.2, 0.1], normalise=True)
    >>> round(cost, 6)
    0.25
    """
    errors = _errors(target_scores, impostor_scores)
    return errors.min_dcf(p_target, c_miss, c_fa, normalise=normalise)


def _errors(target_scores, impostor_scores):
    scores = [np.asarray(own, dtype=float).ravel() for own in (target_scores, impostor_scores)]
    labels = np.repeat([1, 0], [len(own) for own in scores])
    return TrialErrors(labels, np.concatenate(scores))


def speakers_of(files):
    """The speaker of each file by its place in VoxCeleb's layout, two folders above: ``SPEAKER/SESSION/FILE``.

    Arguments
    ---------
    files : sequence of str

    Returns
    -------
    list of str or None
        None if a path has too few folders to name a speaker.

    Example
    -------
    >>> speakers_of(["id10270/5r0dWxy17C8/00001.wav", "wav/id10273/0OCW1HUxZyg/00004.wav"])
    ['id10270', 'id10273']
    >>> speakers_of(["one.wav"]) is None
    True
    """
    parts = [str(file).replace("\\", "/").split("/")[-3:] for file in files]
    return [own[0] for own in parts] if all(len(own) == 3 for own in parts) else None


def check_list(labels, speakers=None, *, name="the list", seed=0):
    """Score a perfect, a permuted and a constant system on a list of trials, so that a broken list is found.

    Where the speakers are known, the perfect system accepts a trial of one speaker. So labels that contradict the
    files' folders are found, for instance when all are flipped. Otherwise it knows the labels.

    Arguments
    ---------
    labels : array of int
        (trials,), 1 for a target and 0 for an impostor.
    speakers : (array, array), optional
        Speakers of the enrolment and of the test recordings, (trials,) each.
    name : str
        The list, for messages.
    seed : int
        Seed of the permutation.

    Returns
    -------
    dict of str: float
        EER in per cent of the systems ``perfect``, ``permuted`` and ``constant``: 0, about 50, and 50.

    Raises
    ------
    ValueError
        If the list has one class only, or a system scores otherwise.

    Example
    -------
    >>> found = check_list([1, 0] * 500)
    >>> found["perfect"], 40 < found["permuted"] < 60, found["constant"]
    (0.0, True, 50.0)
    """
    labels = np.asarray(labels)
    try:
        check_trials(labels, np.zeros(labels.shape))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    same = labels
    if speakers is not None:
        same = np.asarray(speakers[0]) == np.asarray(speakers[1])
        _refuse_contradictions(labels, same, name)
    random = np.random.default_rng(seed)
    perfect = same + 0.5 * random.random(len(labels))
    systems = {
        "perfect": perfect,
        "permuted": random.permutation(perfect),
        "constant": np.zeros(len(labels)),
    }
    found = {key: 100 * TrialErrors(labels, scores).eer()[0] for key, scores in systems.items()}
    targets = int(labels.sum())
    chance = CHANCE * 25 * np.sqrt(1 / targets + 1 / (len(labels) - targets))
    wrong = found["perfect"] != 0 or found["constant"] != 50
    if wrong or abs(found["permuted"] - 50) > max(chance, 1e-9):
        told = ", ".join(f"{key} {value:.1f} %" for key, value in found.items())
        raise ValueError(f"{name}: its labels cannot be scored (EER {told}); check the list")
    return found


def _refuse_contradictions(labels, same, name):
    wrong = np.flatnonzero(same != (labels == 1))
    if not len(wrong):
        return
    if len(wrong) == len(labels):
        raise ValueError(
            f"{name}: every label is flipped, by the speakers' folders; 1 stands for one speaker"
        )
    raise ValueError(
        f"{name}: {len(wrong)} of {len(labels)} labels contradict the speakers' folders, first in trial "
        f"{wrong[0] + 1}; correct the list"
    )


def write_trial_scores(path, labels, enrolment, test, scores):
    """Write a trial a line as a CSV file, numbered from 1 in the order of the list.

    Arguments
    ---------
    path : str or Path
        ``scores_<list>.csv`` by its usual name.
    labels : sequence of int
        1 for a target and 0 for an impostor.
    enrolment, test : sequence of str
        Files of each trial, as the list has them.
    scores : sequence of float
    """
    rows = zip(labels, enrolment, test, scores, strict=True)
    write_csv(
        path,
        TRIAL_COLUMNS,
        (
            (number, int(label), first, second, float(score))
            for number, (label, first, second, score) in enumerate(rows, start=1)
        ),
    )


def read_trial_scores(path):
    """Read what :func:`write_trial_scores` has written.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    dict of str: ScoredTrial
        By the trial's number.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`mamba_speech.evaluation.item_files.read_items`.
    """
    return read_items(path, TRIAL_COLUMNS, _parse, "trial")


def _parse(row):
    label, score = int(row["label"]), float(row["score"])
    if label not in (0, 1) or not np.isfinite(score):
        raise ValueError("no label or no score")
    return ScoredTrial(label, row["enrolment"], row["test"], score)
