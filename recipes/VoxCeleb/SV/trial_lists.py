"""Scoring trial lists with a trained model: its threshold, its error rates, and a file with one row a trial."""

import logging

import numpy as np
from tqdm import tqdm

from mamba_speech.evaluation.score_normalisation import trial_products, unit_length
from mamba_speech.evaluation.verification import TrialErrors, speakers_of, write_trial_scores
from mamba_speech.speaker.embedding import embed_files

logger = logging.getLogger(__name__)


def embed_each(model, paths, name, progress=True, store=None):
    """The embedding of each recording of a list, with a progress bar.

    Arguments
    ---------
    model : torch.nn.Module
    paths : list of str
    name : str
        What the progress bar and errors call the list.
    progress : bool
        Whether there is a progress bar.
    store : mamba_speech.speaker.store.EmbeddingStore, optional
        Embeddings that are kept there are not computed again.

    Returns
    -------
    list of mamba_speech.speaker.embedding.Embedding

    Raises
    ------
    ValueError
        If a recording cannot be used; the sentence names it.
    """
    # a list counts every recording, however short, but silence has no speaker
    found = embed_files(model, paths, store, min_speech=1e-3)
    embeddings = []
    bar = {"desc": f"embedding {name}", "unit": "recording", "disable": not progress}
    for one in tqdm(found, total=len(paths), mininterval=0.5, **bar):
        if one.error:
            raise ValueError(f"{name}: {one.error}")
        embeddings.append(one)
    return embeddings


def embed_list(model, paths, name, progress=True):
    """Embeddings of the recordings of a list, (files, embedding_size); see :func:`embed_each`.

    Raises
    ------
    SystemExit
        If a recording cannot be used; the sentence names it.
    """
    try:
        return np.stack([one.vector for one in embed_each(model, paths, name, progress)])
    except ValueError as error:
        raise SystemExit(str(error)) from error


def score(trials, vectors):
    """Cosine scores (trials,) of a list, from embeddings in the order of its files.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> trials = SimpleNamespace(enrolment=np.array([0, 0]), test=np.array([0, 1]))
    >>> score(trials, np.array([[2.0, 0.0], [0.0, 3.0]])).tolist()
    [1.0, 0.0]
    """
    vectors = unit_length(vectors)
    return trial_products(vectors, vectors, trials.enrolment, trials.test).clip(-1.0, 1.0)


def figures(trials, scores):
    """Error rates of a scored list, and the threshold where misses and false alarms are equally frequent.

    Returns
    -------
    (dict of str: float, float)
        ``EER`` in %, ``minDCF`` at a target prior of 0.01 and ``minDCF_0.05``, both as papers normalise them.
    """
    errors = TrialErrors(trials.labels, scores)
    rate, threshold = errors.eer()
    costs = {
        name: errors.min_dcf(prior, normalise=True)[0]
        for name, prior in (("minDCF", 0.01), ("minDCF_0.05", 0.05))
    }
    return {"EER": 100 * rate, **costs}, threshold


def count_speakers(trials):
    """Speakers of a list by its files' folders; 0 if these name none."""
    return len(set(speakers_of(trials.files) or ()))


def write_scores(path, trials, scores):
    """Write a row a trial."""
    files = trials.files
    write_trial_scores(
        path,
        trials.labels,
        [files[one] for one in trials.enrolment],
        [files[one] for one in trials.test],
        scores,
    )
