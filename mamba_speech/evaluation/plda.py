"""Probabilistic linear discriminant analysis (PLDA) of speaker embeddings, trained by SpeechBrain.

The score of a trial is the logarithm of how much likelier the two embeddings are if one speaker spoke them. SpeechBrain
scores all pairs of two sets; here each trial is scored alone, since a long list has far more pairs than trials.

Sources: Garcia-Romero and Espy-Wilson, "Analysis of i-vector length normalization in speaker recognition systems",
Interspeech 2011; Prince and Elder, "Probabilistic linear discriminant analysis", ICCV 2007.
"""

import numpy as np
from scipy import linalg

from mamba_speech.evaluation.score_normalisation import trial_products, unit_length

# most directions in which speakers differ
LARGEST_RANK = 150


class PldaScorer:
    """PLDA on embeddings that are whitened and brought to one length.

    Whitening keeps as many directions as the training data can tell apart.

    Arguments
    ---------
    embeddings : array of float
        (recordings, size) of training speakers.
    speakers : sequence of str
        Speaker of each recording.
    iterations : int
        Steps of the expectation-maximisation.

    Raises
    ------
    ValueError
        If there are fewer than three speakers, no more recordings than speakers, or all embeddings are equal.

    Example
    -------
    >>> random = np.random.default_rng(0)
    >>> means = random.normal(size=(20, 4))
    >>> heard = np.repeat(means, 5, axis=0) + 0.3 * random.normal(size=(100, 4))
    >>> scorer = PldaScorer(heard, np.repeat(np.arange(20), 5))
    >>> same, other = scorer.score(heard, np.array([0, 0]), np.array([1, 5]))
    >>> bool(same > other)
    True
    """

    def __init__(self, embeddings, speakers, iterations=10):
        # here, since it loads SpeechBrain's networks, which the other scores do without
        from speechbrain.processing.PLDA_LDA import PLDA

        names, member = np.unique(np.asarray(speakers), return_inverse=True)
        repeated = len(member) - len(names)
        if len(names) < 3 or not repeated:
            raise ValueError(
                f"PLDA needs three speakers or more, some with several recordings; it got {len(member)} "
                f"recordings of {len(names)} speakers"
            )
        embeddings = unit_length(embeddings)
        self._mean = embeddings.mean(axis=0)
        self._whitening = _whitening(embeddings - self._mean, min(len(names) - 1, repeated))
        vectors = self._project(embeddings)
        model = PLDA(rank_f=min(LARGEST_RANK, vectors.shape[1]), nb_iter=iterations)
        model.plda(_statistics(vectors, member))
        self.mean, self.factors, self.residual = model.mean, model.F, model.Sigma
        self._prepare()

    def _project(self, embeddings):
        """Whitened vectors of length 1, (recordings, directions)."""
        return unit_length((unit_length(embeddings) - self._mean) @ self._whitening)

    def _prepare(self):
        """The score is a constant, a quadratic form of each side, and a bilinear form of both."""
        between = self.factors @ self.factors.T
        total = between + self.residual
        inverse = linalg.inv(total)
        # of one side, given the other of the same speaker
        conditional = linalg.inv(total - between @ inverse @ between)
        self._alone = (inverse - conditional) / 2
        self._together = inverse @ between @ conditional
        both = np.block([[total, between], [between, total]])
        self._constant = np.linalg.slogdet(total)[1] - np.linalg.slogdet(both)[1] / 2

    def score(self, embeddings, enrolment, test):
        """Log-likelihood ratios of trials.

        Arguments
        ---------
        embeddings : array of float
            (recordings, size).
        enrolment, test : array of int
            (trials,) rows of the recordings. The sides may change places.

        Returns
        -------
        array of float
            (trials,).
        """
        vectors = self._project(embeddings) - self.mean
        alone = np.einsum("ij,ij->i", vectors @ self._alone, vectors)
        together = trial_products(vectors @ self._together, vectors, enrolment, test)
        return self._constant + alone[enrolment] + alone[test] + together


def _whitening(centred, directions):
    """Projection (size, directions) on the main directions of centred vectors, each to variance 1."""
    values, vectors = linalg.eigh(np.cov(centred, rowvar=False, bias=True))
    # what rounding leaves of an empty direction must not be blown up
    kept = np.flatnonzero(values > 1e-10 * max(values[-1], 0))[::-1][:directions]
    if not len(kept) or values[-1] < 1e-12:
        raise ValueError("PLDA cannot be trained: all embeddings are equal")
    return vectors[:, kept] / np.sqrt(values[kept])


def _statistics(vectors, member):
    """The vectors in SpeechBrain's form."""
    from speechbrain.processing.PLDA_LDA import StatObject_SB

    count = len(vectors)
    unknown = np.full(count, None)
    return StatObject_SB(
        modelset=member.astype(str).astype(object),
        segset=np.arange(count).astype(str).astype(object),
        start=unknown,
        stop=unknown,
        stat0=np.ones((count, 1)),
        stat1=vectors.copy(),
    )
