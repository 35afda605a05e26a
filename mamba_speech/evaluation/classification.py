"""How well clips were put into classes: accuracy with its interval, F1, and which class was taken for which.

Sources: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), for the
interval; van Rijsbergen, "Information Retrieval" (1979), for F1.
"""

import math
from typing import NamedTuple

import torch

from mamba_speech.evaluation.item_files import read_items
from mamba_speech.files import write_csv


class Prediction(NamedTuple):
    """What a clip of the test was taken for, with the confidence (0 to 1) that the model gave it."""

    clip: str
    wav: str
    speaker: str
    said: str
    heard: str
    confidence: float

    @property
    def correct(self):
        """Whether it was taken for what it is."""
        return self.said == self.heard


VOICE_COLUMNS = ("voice", "clips", "right", "accuracy", "accuracy_low", "accuracy_high")
# how the names of classes begin that are no words
NO_WORD = "_"
PREDICTION_COLUMNS = ("ID", "wav", "speaker", "said", "heard", "confidence", "correct")


def write_predictions(path, predictions):
    """Write a clip a line as a CSV file: the mistakes first, the surest of them foremost, then the rest by ID.

    Arguments
    ---------
    path : str or Path
    predictions : list of Prediction
    """
    ordered = sorted(
        predictions, key=lambda one: (one.correct, 0 if one.correct else -one.confidence, one.clip)
    )
    rows = ((*one[:5], f"{one.confidence:.4f}", int(one.correct)) for one in ordered)
    write_csv(path, PREDICTION_COLUMNS, rows)


def write_per_voice(path, predictions):
    """Write how well each voice's words were recognised as a CSV file, the hardest voices first.

    Arguments
    ---------
    path : str or Path
    predictions : list of Prediction
        Clips of classes that are no words do not count.
    """
    voices = {}
    for one in predictions:
        if not one.said.startswith(NO_WORD):
            voices.setdefault(one.speaker, []).append(one.correct)
    rows = []
    for voice, right in voices.items():
        low, high = wilson_interval(sum(right), len(right))
        accuracy = 100 * sum(right) / len(right)
        rows.append((voice, len(right), sum(right), accuracy, 100 * low, 100 * high))
    rows.sort(key=lambda row: (row[3], row[0]))
    shown = ((*row[:3], *(f"{value:.1f}" for value in row[3:])) for row in rows)
    write_csv(path, VOICE_COLUMNS, shown)


def read_predictions(path):
    """Read what :func:`write_predictions` has written.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    dict of str: Prediction
        By the clip's ID.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`mamba_speech.evaluation.item_files.read_items`.
    """
    return read_items(path, PREDICTION_COLUMNS, _parse, "clip")


def _parse(row):
    *texts, confidence, _ = (row[name] for name in PREDICTION_COLUMNS)
    return Prediction(*texts, float(confidence))


def wilson_interval(right, total, z=1.959964):
    """The interval that holds a proportion, 95 % by default, by Wilson's score.

    Arguments
    ---------
    right, total : int
        Successes, and trials (at least one).
    z : float
        Quantile of the normal distribution.

    Returns
    -------
    (float, float)
        Both ends, from 0 to 1.

    Raises
    ------
    ValueError
        If there are no trials, or more successes than trials.

    Example
    -------
    >>> low, high = wilson_interval(95, 100)
    >>> round(low, 4), round(high, 4)
    (0.8882, 0.9785)
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(f"{right} of {total} is no proportion")
    share, square = right / total, z * z / total
    centre = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


class ConfusionMatrix:
    """Counts of clips by the class that they are of and the class that they were taken for.

    Arguments
    ---------
    labels : list of str

    Example
    -------
    >>> import torch
    >>> matrix = ConfusionMatrix(["no", "yes"])
    >>> matrix.add(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    >>> matrix.counts.tolist(), round(matrix.figures()["accuracy"], 1)
    ([[1, 1], [0, 1]], 66.7)
    """

    def __init__(self, labels):
        self.labels = list(labels)
        self.counts = torch.zeros(len(labels), len(labels), dtype=torch.long)

    def add(self, said, heard):
        """Count a batch; both arguments are (batch,) class indices."""
        size = len(self.labels)
        cells = (said * size + heard).cpu()
        self.counts += torch.bincount(cells, minlength=size * size).view(size, size)

    def per_class(self):
        """One row a class that was said or heard: clips, precision, recall and F1 in %.

        Returns
        -------
        list of dict
        """
        right = self.counts.diagonal()
        said, heard = self.counts.sum(1), self.counts.sum(0)
        rows = []
        for index, label in enumerate(self.labels):
            if not (said[index] or heard[index]):
                continue
            hits = int(right[index])
            rows.append(
                {
                    "class": label,
                    "clips": int(said[index]),
                    "precision": 100 * hits / max(1, int(heard[index])),
                    "recall": 100 * hits / max(1, int(said[index])),
                    "F1": 100 * 2 * hits / int(said[index] + heard[index]),
                }
            )
        return rows

    def figures(self):
        """Accuracy, its 95 % interval and the mean F1 of the classes that occur, in %, and the clips.

        Returns
        -------
        dict of str: float
        """
        total = int(self.counts.sum())
        right = int(self.counts.diagonal().sum())
        low, high = wilson_interval(right, total)
        rows = self.per_class()
        return {
            "accuracy": 100 * right / total,
            "accuracy_low": 100 * low,
            "accuracy_high": 100 * high,
            "macro_F1": sum(row["F1"] for row in rows) / len(rows),
            "clips": total,
        }

    def word_figures(self):
        """Accuracy, its 95 % interval in %, and the clips, over the classes that are words alone.

        A word that is taken for no word is a mistake. Empty if every class is a word, or no word was said.

        Returns
        -------
        dict of str: float

        Example
        -------
        >>> import torch
        >>> matrix = ConfusionMatrix(["yes", "_unknown_"])
        >>> matrix.add(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
        >>> matrix.word_figures()["word_accuracy"]
        50.0
        """
        words = [index for index, label in enumerate(self.labels) if not label.startswith(NO_WORD)]
        total = int(self.counts[words].sum())
        if len(words) == len(self.labels) or not total:
            return {}
        right = int(self.counts.diagonal()[words].sum())
        low, high = wilson_interval(right, total)
        return {
            "word_accuracy": 100 * right / total,
            "word_accuracy_low": 100 * low,
            "word_accuracy_high": 100 * high,
            "word_clips": total,
        }

    def write_per_class(self, path):
        """Write :meth:`per_class` as a CSV file."""
        rows = [
            {
                name: f"{value:.2f}" if isinstance(value, float) else value
                for name, value in row.items()
            }
            for row in self.per_class()
        ]
        write_csv(path, rows[0], rows)


def macro_f1(predictions):
    """The mean F1 of the classes that were said or heard, in %.

    Arguments
    ---------
    predictions : iterable of Prediction

    Returns
    -------
    float

    Example
    -------
    >>> clips = [("yes", "yes"), ("yes", "no"), ("no", "no")]
    >>> predictions = [Prediction("", "", "", said, heard, 1.0) for said, heard in clips]
    >>> round(macro_f1(predictions), 1)
    66.7
    """
    predictions = list(predictions)
    labels = sorted({label for one in predictions for label in (one.said, one.heard)})
    index = {label: number for number, label in enumerate(labels)}
    matrix = ConfusionMatrix(labels)
    matrix.add(
        torch.tensor([index[one.said] for one in predictions]),
        torch.tensor([index[one.heard] for one in predictions]),
    )
    return matrix.figures()["macro_F1"]
