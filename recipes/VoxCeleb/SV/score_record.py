"""What score.py leaves behind: a table, a row a trial in CSV files, pictures, and a record as a test leaves it."""

import numpy as np
from trial_lists import write_scores

from mamba_speech.evaluation.bootstrap import figure_intervals
from mamba_speech.evaluation.verification import TrialErrors, speakers_of
from training.experiment import describe_device
from training.provenance import find_commit, load_average, processor, utc_now
from training.recording import installed_versions
from training.results import (
    FILE_NAME,
    VERSION,
    Commit,
    Recipe,
    Record,
    Result,
    Session,
    read_results,
    write_results,
)
from training.scores import FEWEST_SPEAKERS

COSTS = (("minDCF", 0.01), ("minDCF_0.05", 0.05))


class ListFigures:
    """Figures of a scored list, with 95 % intervals: speakers are drawn, or trials where too few are known.

    Arguments
    ---------
    trials : data_prep.trials.Trials
    scores : dict of str: array of float
        (trials,) each, by way of scoring.
    speakers : set of str
        Speakers by the files' folders; empty if these name none.
    resamples, seed : int
        Number and seed of the draws.

    Attributes
    ----------
    errors : dict of str: TrialErrors
        By way of scoring.
    figures : dict of str: dict of str: float
        By way of scoring: ``EER`` in %, ``minDCF`` (prior 0.01) and ``minDCF_0.05`` as papers normalise them, their
        bounds as ``EER_low`` and so on, and ``threshold`` of the EER.
    drawn : str
        ``speakers`` or ``trials``.
    """

    def __init__(self, trials, scores, speakers, *, resamples=1000, seed=0):
        self.errors = {name: TrialErrors(trials.labels, own) for name, own in scores.items()}
        groups = None
        if len(speakers) >= FEWEST_SPEAKERS:
            names = speakers_of(trials.files)
            sides = (
                np.array(names, dtype=object)[side] for side in (trials.enrolment, trials.test)
            )
            groups = list(zip(*sides, strict=True))
        self.drawn = "trials" if groups is None else "speakers"
        intervals = figure_intervals(
            self._all, len(trials.labels), groups, resamples=resamples, seed=seed, student=True
        )
        self.figures = {}
        for name, errors in self.errors.items():
            own = {"threshold": errors.eer()[1]}
            for figure in ("EER", *(cost for cost, _ in COSTS)):
                found = intervals.pop(0)
                own |= {figure: found.estimate, f"{figure}_low": found.low}
                own[f"{figure}_high"] = found.high
            self.figures[name] = own

    def _all(self, weights):
        """The figures of all ways of scoring, one after the other, for one draw."""
        found = []
        for errors in self.errors.values():
            drawn = errors if weights is None else errors.weighted(weights)
            if drawn is None:
                return None
            found.append(100 * drawn.eer()[0])
            found += [drawn.min_dcf(prior, normalise=True)[0] for _, prior in COSTS]
        return found

    def table(self, name):
        """Lines of a table, one a way of scoring."""
        lines = []
        for way, own in self.figures.items():
            line = {"list": name, "scoring": way}
            for figure, label, form in (
                ("EER", "EER %", "{:.2f}"),
                ("minDCF", "minDCF 0.01", "{:.3f}"),
                ("minDCF_0.05", "minDCF 0.05", "{:.3f}"),
            ):
                line[label] = form.format(own[figure])
                low, high = (form.format(own[f"{figure}_{end}"]) for end in ("low", "high"))
                line[f"{label}: 95 %"] = f"{low} to {high}"
            lines.append(line)
        return lines


def describe_list(trials, file, digest, speakers):
    """The list in one line: its name, edition, size, speakers, hash and file."""
    edition = ""
    if trials.name.startswith("vox1-"):
        edition = " (cleaned edition)" if trials.name.endswith("-clean") else " (original edition)"
    targets = int(trials.labels.sum())
    who = "speakers not known" if not speakers else f"{speakers:,} speakers"
    return (
        f"{trials.name}{edition}: {len(trials):,} trials, {targets:,} of them targets, {who}; "
        f"SHA-256 {digest[:12]}; {file}"
    )


def scored_name(trials, way):
    """The name of a scored list in files and in the record: plain for cosines.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> [scored_name(SimpleNamespace(name="vox1-O-clean"), way) for way in ("cosine", "as_norm")]
    ['vox1-O-clean', 'vox1-O-clean.as_norm']
    """
    return trials.name if way == "cosine" else f"{trials.name}.{way}"


def write_all_scores(folder, trials, scores):
    """Write ``scores_<list>.csv``, and ``scores_<list>.as_norm.csv`` and so on for other ways of scoring."""
    for way, own in scores.items():
        write_scores(folder / f"scores_{scored_name(trials, way)}.csv", trials, own)


def describe_session(overrides, fidelity, seed, lists, device, threads):
    """This start of the script, for the record."""
    commit = find_commit()
    return Session(
        started=utc_now(),
        overrides=overrides,
        fidelity=fidelity,
        seeds={"seed": seed},
        lists=lists,
        commit=None if commit is None else Commit(*commit),
        versions=installed_versions(),
        device=describe_device(device),
        processor=processor(),
        threads=threads,
        world_size=1,
        precision="fp32",
        eval_precision="fp32",
        load_start=load_average(),
    )


def write_record(folder, run, session, weights, parameters, tests):
    """Write or extend ``results.json``, so that the folder reads as a tested run's.

    Tests of other weights that stand there are dropped.

    Arguments
    ---------
    folder, run : Path
        Where it goes, and the run that was scored.
    session : training.results.Session
    weights : str
        Hash of the weights.
    parameters : int
        Of the model.
    tests : dict of str: (int, str, dict, dict, dict)
        By test name: items, hash of the list, figures, conditions and the way of scoring.
    """
    training = _training(run)
    session.ended, session.load_end = utc_now(), load_average()
    before = _before(folder, weights)
    for name, (items, digest, figures, conditions, scoring) in tests.items():
        before[name] = Result(
            figures={key: round(float(value), 4) for key, value in figures.items()},
            items=items,
            manifest=digest,
            decoding=scoring,
            conditions=conditions | {"weights": weights},
            checkpoints=None,
            parameters=parameters,
            optimizer_steps=training and training.optimizer_steps,
            train_seconds=training and training.seconds,
            peak_memory_mb=None,
            date=session.ended,
            session=session,
        )
    recipe = Recipe("recipes/VoxCeleb/SV", "score.py")
    write_results(folder, Record(VERSION, recipe, training, before))


def _training(run):
    """What the run's own record tells of its training; None without a record."""
    try:
        return read_results(run).training
    except FileNotFoundError:
        return None


def _before(folder, weights):
    if not (folder / FILE_NAME).is_file():
        return {}
    tests = read_results(folder).tests
    return {name: one for name, one in tests.items() if one.conditions.get("weights") == weights}
