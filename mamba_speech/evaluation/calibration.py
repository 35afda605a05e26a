"""Calibration of scores by the quality of the two recordings (quality measure functions).

A logistic regression turns a score and measures of quality into log-odds. It is trained on trials of other speakers
than it is used on.

Source: Thienpondt et al., "The IDLab VoxSRC-20 submission: large margin fine-tuning and quality-aware score calibration
in DNN based speaker verification", arXiv 2010.11255. The measures here are the same for both orders of a trial.
"""

import numpy as np
from scipy import optimize, special

from mamba_speech.evaluation.verification import check_trials

# weight of the squared coefficients: enough for a solution where classes are separable, too little to matter elsewhere
RIDGE = 1e-4


def quality_measures(scores, qualities, enrolment, test):
    """A trial's score, and the lower and the higher value of each quality of its recordings.

    Arguments
    ---------
    scores : array of float
        (trials,).
    qualities : dict of str: array of float
        (recordings,) each, by name, such as the logarithm of the seconds of speech.
    enrolment, test : array of int
        (trials,) places of the two recordings.

    Returns
    -------
    dict of str: array of float
        (trials,) each, by name.

    Example
    -------
    >>> found = quality_measures(np.array([0.5]), {"length": np.array([2.0, 1.0])}, np.array([0]), np.array([1]))
    >>> {name: values.tolist() for name, values in found.items()}
    {'score': [0.5], 'lower length': [1.0], 'higher length': [2.0]}
    """
    measures = {"score": np.asarray(scores, dtype=float)}
    for name, values in qualities.items():
        values = np.asarray(values, dtype=float)
        first, second = values[enrolment], values[test]
        measures[f"lower {name}"] = np.minimum(first, second)
        measures[f"higher {name}"] = np.maximum(first, second)
    return measures


class Calibration:
    """Logistic regression from measures of trials to the log-odds that one speaker is heard.

    Targets and impostors count equally, so 0 is the log-odds at even chances.

    Arguments
    ---------
    measures : dict of str: array of float
        (trials,) each, see :func:`quality_measures`.
    labels : array of int
        (trials,), 1 for a target and 0 for an impostor.

    Attributes
    ----------
    coefficients : dict of str: float
        By measure, each for a change by one standard deviation of the training trials.

    Raises
    ------
    ValueError
        If one class has no trial, or a measure is not finite.

    Example
    -------
    >>> labels = np.array([1, 0] * 50)
    >>> scores = labels + np.random.default_rng(0).normal(size=100)
    >>> calibration = Calibration({"score": scores}, labels)
    >>> high, low = calibration({"score": np.array([3.0, -2.0])})
    >>> bool(high > 0 > low), list(calibration.coefficients)
    (True, ['score'])
    """

    def __init__(self, measures, labels):
        labels = np.asarray(labels)
        for name, values in measures.items():
            try:
                check_trials(labels, values)
            except ValueError as error:
                raise ValueError(f"calibration by {name}: {error}") from error
        self.names = list(measures)
        values = self._stack(measures)
        self._mean, deviation = values.mean(axis=0), values.std(axis=0)
        # a measure that never changes says nothing
        self._deviation = np.where(deviation > 1e-12, deviation, np.inf)
        inputs = (values - self._mean) / self._deviation
        signs = np.where(labels == 1, 1.0, -1.0)
        weights = np.where(labels == 1, 0.5 / labels.sum(), 0.5 / (len(labels) - labels.sum()))

        def loss(solution):
            margins = signs * (inputs @ solution[1:] + solution[0])
            value = -weights @ special.log_expit(margins) + RIDGE * solution[1:] @ solution[1:]
            pull = -weights * signs * special.expit(-margins)
            slope = inputs.T @ pull + 2 * RIDGE * solution[1:]
            return value, np.concatenate([[pull.sum()], slope])

        start = np.zeros(inputs.shape[1] + 1)
        found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
        self._offset, self._slopes = found.x[0], found.x[1:]
        self.coefficients = dict(zip(self.names, self._slopes.tolist(), strict=True))

    def _stack(self, measures):
        return np.stack([np.asarray(measures[name], dtype=float) for name in self.names], axis=1)

    def __call__(self, measures):
        """Log-odds of trials, (trials,), from the same measures as in training."""
        inputs = (self._stack(measures) - self._mean) / self._deviation
        return inputs @ self._slopes + self._offset
