"""How well clips were put into classes: accuracy with its interval, F1, and which class was taken for which.

Sources: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), for the
interval; van Rijsbergen, "Information Retrieval" (1979), for F1.
"""

import csv
import math
import os
from pathlib import Path

import torch


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

    def write_per_class(self, path):
        """Write :meth:`per_class` as a CSV file."""
        rows = self.per_class()
        partial = Path(path).with_suffix(".partial")
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items()}
                )
        os.replace(partial, path)
