"""From trial lists to scores: embeddings of their recordings, a cohort, and the ways of scoring that it serves."""

import logging
from typing import NamedTuple

import numpy as np
from trial_lists import embed_each, refuse_unusable

from mamba_speech.evaluation.calibration import Calibration, quality_measures
from mamba_speech.evaluation.plda import PldaScorer
from mamba_speech.evaluation.score_normalisation import (
    as_norm,
    cohort_statistics,
    trial_products,
    unit_length,
)
from mamba_speech.files import read_csv

logger = logging.getLogger(__name__)


class Embedded(NamedTuple):
    """Embeddings of recordings, and what tells of their quality.

    ``vectors`` are (recordings, size) in float64, of length 1. ``magnitude`` is the length before, and ``seconds`` are
    of speech, (recordings,) each.
    """

    vectors: np.ndarray
    magnitude: np.ndarray
    seconds: np.ndarray


class Cohort(NamedTuple):
    """Embeddings of training speakers, with the speaker of each recording, (recordings,)."""

    vectors: np.ndarray
    speakers: np.ndarray

    def without(self, names):
        """The cohort without some speakers."""
        kept = ~np.isin(self.speakers, sorted(names))
        if not kept.all():
            left = len(set(self.speakers[~kept]))
            logger.info("cohort: %d speakers of the trials are left out", left)
        return Cohort(self.vectors[kept], self.speakers[kept])

    def means(self):
        """The mean embedding of each speaker, (speakers, size), of length 1."""
        names, member = np.unique(self.speakers, return_inverse=True)
        sums = np.zeros((len(names), self.vectors.shape[1]))
        np.add.at(sums, member, self.vectors)
        return unit_length(sums)


def embed_with_quality(model, paths, store, name, progress=True):
    """Embed recordings, or find their embeddings in the store, with a progress bar.

    Arguments
    ---------
    model : torch.nn.Module
        A speaker model.
    paths : list of str
    store : mamba_speech.speaker.store.EmbeddingStore
    name : str
        What the progress bar and errors call the recordings.
    progress : bool

    Returns
    -------
    Embedded

    Raises
    ------
    ValueError
        If recordings cannot be used; the sentence counts them and names the first.
    """
    found = embed_each(model, paths, name, progress, store)
    refuse_unusable(name, found)
    vectors = np.stack([one.vector for one in found]).astype(np.float64)
    seconds = np.array([one.speech_seconds for one in found])
    return Embedded(unit_length(vectors), np.linalg.norm(vectors, axis=1), seconds)


def read_cohort(manifest, per_speaker):
    """Recordings of training speakers from a manifest of the preparation.

    Arguments
    ---------
    manifest : str or Path
        CSV file with the columns ``wav`` and ``speaker``.
    per_speaker : int
        Recordings of a speaker at most, spread evenly over the speaker's rows.

    Returns
    -------
    (list of str, list of str)
        Paths, and the speaker of each.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is not there, or is no such manifest.
    """
    recordings = {}
    try:
        for _, row in read_csv(manifest, ("wav", "speaker"))[1]:
            recordings.setdefault(row["speaker"], {})[row["wav"]] = None
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the cohort {manifest} is not there; give a manifest of training speakers, such as train.csv"
        ) from error
    except ValueError as error:
        raise ValueError(f"the cohort {error}") from error
    if not recordings:
        raise ValueError(f"the cohort {manifest} names no recording")
    paths, speakers = [], []
    for speaker, own in sorted(recordings.items()):
        own = list(own)
        places = np.linspace(0, len(own) - 1, min(per_speaker, len(own))).round().astype(int)
        paths += [own[place] for place in places]
        speakers += [speaker] * len(places)
    return paths, speakers


class Scorer:
    """The ways of scoring that a command asks for: cosine, and with a cohort AS-norm, PLDA and calibration.

    Arguments
    ---------
    cohort : Cohort, optional
        Speakers for the normalisation.
    plda : Cohort, optional
        Speakers that PLDA is trained on.
    top : int
        Number of cohort scores that count in the normalisation.
    """

    def __init__(self, cohort=None, plda=None, *, top=300):
        self._means = None if cohort is None else cohort.means()
        self._top = top
        self._plda = None if plda is None else PldaScorer(plda.vectors, plda.speakers)
        self.calibration = None

    def scores(self, trials, embedded):
        """Scores of a list, (trials,) each, by way of scoring.

        Arguments
        ---------
        trials : data_prep.trials.Trials
        embedded : Embedded
            In the order of the list's files.

        Returns
        -------
        dict of str: array of float
        """
        found, measures = self._score(trials, embedded)
        if self.calibration is not None:
            found["calibrated"] = self.calibration(measures)
        return found

    def calibrate(self, trials, embedded):
        """Train the calibration on a list of other speakers; see :meth:`scores`."""
        self.calibration = Calibration(self._score(trials, embedded)[1], trials.labels)

    def _score(self, trials, embedded):
        """Scores by way of scoring, and the measures of the calibration: with AS-norm where there is a cohort."""
        vectors, sides = embedded.vectors, (trials.enrolment, trials.test)
        # rounding may pass 1
        cosine = trial_products(vectors, vectors, *sides).clip(-1.0, 1.0)
        found = {"cosine": cosine}
        qualities = {
            "log seconds": np.log(embedded.seconds),
            "magnitude": embedded.magnitude,
        }
        basis = cosine
        if self._means is not None:
            statistics = cohort_statistics(vectors, self._means, self._top)
            basis = found["as_norm"] = as_norm(cosine, statistics, *sides)
            qualities["cohort mean"] = statistics.mean
        if self._plda is not None:
            found["plda"] = self._plda.score(vectors, *sides)
        return found, quality_measures(basis, qualities, *sides)
