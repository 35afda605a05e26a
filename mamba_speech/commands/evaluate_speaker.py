"""The test of a speaker verifier on a list of trials: equal error rate and detection cost."""

import os
from pathlib import Path

from mamba_speech.audio import AudioError
from mamba_speech.audio.finding import find_named
from mamba_speech.commands.report import Figure, Report
from mamba_speech.evaluation.bootstrap import figure_intervals
from mamba_speech.evaluation.verification import TrialErrors, speakers_of
from mamba_speech.lists.encodings import read_lines
from mamba_speech.recordings import Recording
from mamba_speech.speaker.embedding import similarity

LABELS = {"1": 1, "0": 0, "target": 1, "nontarget": 0, "tgt": 1, "imp": 0}
# draws of an interval, of short lists and in all
DRAWS, MOST_DRAWN = 1000, 100_000_000
_FOLDERS = ("", "wav", "audio")


def evaluate_speaker(model, path, data_folder=None, progress=list):
    """Test a speaker verifier.

    Arguments
    ---------
    model : mamba_speech.speaker.verifier.SpeakerVerifier
    path : str or Path
        A trial a line: ``label path path`` or ``path path label``, with tabs between where paths hold blanks. The
        label is 1 or 0, target or nontarget, tgt or imp.
    data_folder : str or Path, optional
        Folder that the paths are relative to; by default the list's own.
    progress : callable
        See :func:`mamba_speech.commands.evaluate_recognition.evaluate_recognition`.

    Returns
    -------
    Report
        ``EER`` in %, and normalised ``minDCF`` at priors of 0.01 and 0.05.

    Raises
    ------
    OSError, ValueError
        If the list cannot be read, has no labels, or lacks trials of one kind.
    """
    trials = read_labelled_pairs(path)
    names = list(dict.fromkeys(name for _, *pair in trials for name in pair))
    places = [data_folder] if data_folder is not None else [Path(path).parent, ""]
    recordings = [Recording(_located(name, places)) for name in names]
    results = progress(model.embed(recordings), len(recordings))
    found = dict(zip(names, results, strict=True))
    report = Report("trials", errors=[one.error for one in found.values() if one.error])
    scored = [trial for trial in trials if not any(found[name].error for name in trial[1:])]
    if not scored:
        raise ValueError(f"{path}: nothing of it could be tested: {report.errors[0]}")
    labels = [label for label, *_ in scored]
    scores = [similarity(found[a].vector, found[b].vector) for _, a, b in scored]
    try:
        _count(report, labels, scores, scored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    report.notes |= {"recordings": len(names), "left_out": len(trials) - len(scored)}
    report.rows = [
        {"id": number, "label": label, "enrolment": first, "test": second, "score": score}
        for number, ((label, first, second), score) in enumerate(
            zip(scored, scores, strict=True), 1
        )
    ]
    return report


def _count(report, labels, scores, scored):
    errors = TrialErrors(labels, scores)
    sides = [speakers_of([one[side] for one in scored]) for side in (1, 2)]
    known = None not in sides
    groups = list(zip(*sides, strict=True)) if known else None

    def figures(weights):
        found = errors if weights is None else errors.weighted(weights)
        if found is None:
            return None
        costs = [found.min_dcf(prior, normalise=True)[0] for prior in (0.01, 0.05)]
        return [100 * found.eer()[0], *costs]

    draws = max(100, min(DRAWS, MOST_DRAWN // len(scored)))
    intervals = figure_intervals(figures, len(scored), groups, resamples=draws)
    units = {"EER": "%", "minDCF": "", "minDCF_0.05": ""}
    for (name, unit), one in zip(units.items(), intervals, strict=True):
        report.figures[name] = Figure(one.estimate, one.low, one.high, unit)
    report.notes["threshold"] = errors.eer()[1]
    report.notes["interval_draws"] = "speakers" if known else "trials"


def read_labelled_pairs(path):
    """The trials of a list: label, enrolment and test of each; see :func:`evaluate_speaker`.

    Example
    -------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "trials.txt")
    >>> _ = file.write_text("1 a.wav b.wav\\nb.wav c.wav nontarget\\n")
    >>> read_labelled_pairs(file)
    [(1, 'a.wav', 'b.wav'), (0, 'b.wav', 'c.wav')]
    """
    trials = []
    for number, line in read_lines(Path(path)):
        fields = [one.strip() for one in (line.split("\t") if "\t" in line else line.split())]
        if not any(fields):
            continue
        if len(fields) == 3 and fields[0] not in LABELS and fields[2] in LABELS:
            fields = [fields[2], *fields[:2]]
        if len(fields) != 3 or fields[0] not in LABELS:
            raise ValueError(
                f"{path}, line {number}: must be a label, which is 1 or 0, and two paths; with tabs between where "
                f"paths hold blanks; got {line.strip()!r:.80}"
            )
        trials.append((LABELS[fields[0]], *fields[1:]))
    if not trials:
        raise ValueError(
            f"{path}: names no trials; a line is a label, which is 1 or 0, and two paths"
        )
    return trials


def _located(name, places):
    """The file of a name, where it is; else its path in the first place, which the reader says is not there."""
    for place in places:
        for folder in _FOLDERS:
            try:
                return find_named(name, os.path.join(place, folder))
            except AudioError:
                continue
    return Path(places[0], name)
