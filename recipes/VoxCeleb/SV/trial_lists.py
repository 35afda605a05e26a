"""Scoring trial lists with a trained model: its threshold, its error rates, and a file with one row a trial."""

import dataclasses

import numpy as np
from tqdm import tqdm

from mamba_speech.evaluation.score_normalisation import trial_products, unit_length
from mamba_speech.evaluation.verification import TrialErrors, speakers_of, write_trial_scores
from mamba_speech.speaker.embedding import embed_files
from training.results import read_results


def embed_each(model, paths, name, progress=True, store=None):
    """The embedding of each recording of a list, with a progress bar.

    Arguments
    ---------
    model : torch.nn.Module
    paths : list of str
    name : str
        What the progress bar calls the list.
    progress : bool
        Whether there is a progress bar.
    store : mamba_speech.speaker.store.EmbeddingStore, optional
        Embeddings that are kept there are not computed again.

    Returns
    -------
    list of mamba_speech.speaker.embedding.Embedding
        A recording that cannot be used has ``error``, which names it.
    """
    # a list counts every recording, however short, but silence has no speaker
    found = embed_files(model, paths, store, min_speech=1e-3)
    bar = {"desc": f"embedding {name}", "unit": "recording", "disable": not progress}
    return list(tqdm(found, total=len(paths), mininterval=0.5, **bar))


def refuse_unusable(name, embeddings):
    """Raise ``ValueError`` if recordings of a list cannot be used; the sentence counts them and names the first."""
    errors = [one.error for one in embeddings if one.error]
    if errors:
        number = "1 recording" if len(errors) == 1 else f"{len(errors)} recordings"
        raise ValueError(f"{name}: {number} cannot be used, so the list is not scored: {errors[0]}")


def refuse_other_list(folder, name, digest):
    """Raise ``ValueError`` if a folder holds the scores of another list of this name, which would be lost.

    Arguments
    ---------
    folder : str or Path
    name, digest : str
        Name of a list, and the hash of its file.
    """
    try:
        before = read_results(folder).tests.get(name)
    except FileNotFoundError:
        return
    if before is not None and before.manifest not in (None, digest):
        raise ValueError(
            f"{folder}: holds the scores of another list called {name}: rename this list's file, or give another "
            "--output_folder"
        )


def without_unusable(trials, embeddings):
    """A list without the trials of recordings that cannot be used.

    Arguments
    ---------
    trials : data_prep.trials.Trials
    embeddings : list of mamba_speech.speaker.embedding.Embedding
        In the order of its files.

    Returns
    -------
    data_prep.trials.Trials
        With all its files.

    Raises
    ------
    ValueError
        If target trials or impostor trials are all left out.
    """
    usable = np.array([one.error is None for one in embeddings])
    example = next((one.error for one in embeddings if one.error), "")
    return without_files(trials, usable, example)


def without_files(trials, usable, example="one that could not be read"):
    """A list without the trials of some files, whose place in ``usable`` is False; see :func:`without_unusable`."""
    kept = usable[trials.enrolment] & usable[trials.test]
    left = {name: getattr(trials, name)[kept] for name in ("labels", "enrolment", "test")}
    if len(set(left["labels"].tolist())) < 2:
        raise ValueError(
            f"{trials.name}: too many of its recordings cannot be used, such as {example}"
        )
    return dataclasses.replace(trials, **left)


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
    """Speakers in the trials of a list by its files' folders; 0 if these name none."""
    heard = np.union1d(trials.enrolment, trials.test)
    return len(set(speakers_of([trials.files[one] for one in heard]) or ()))


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
