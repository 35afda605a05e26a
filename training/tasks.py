"""The tasks whose systems can be compared: the file that a test leaves with one row an item, and its metrics."""

import statistics
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mamba_speech.evaluation.classification import macro_f1, read_predictions
from mamba_speech.evaluation.separation import read_scores
from mamba_speech.evaluation.verification import (
    TrialErrors,
    read_trial_scores,
    speakers_of,
)
from mamba_speech.evaluation.wer import read_errors

ROOT = Path(__file__).resolve().parents[1]


class Item(NamedTuple):
    """A test item: its scores by metric as (value, size), who is heard in it as far as known, its row of the file."""

    scores: dict
    speakers: tuple
    row: Any


class Metric(NamedTuple):
    """How a metric is shown: column, unit of differences, factor of the ratio, and whether more of it is better.

    A ``proportion`` counts items that are right, so its interval is at least Wilson's. What is not ``shown`` has a
    column only as the metric of the differences. A ``figure`` serves where the metric is no ratio of sums over items:
    from the items' values and sizes it makes a callable, from their weights or None to the metric or None.
    """

    label: str
    unit: str
    scale: float = 1.0
    higher: bool = True
    proportion: bool = False
    shown: bool = True
    figure: Any = None


class Task(NamedTuple):
    """A task whose systems can be compared.

    Arguments
    ---------
    name, items : str
        Names of the task and of its test items.
    scripts : tuple of str
        Training scripts below ``recipes``.
    file : str
        Pattern of the file that a test leaves; what the star stands for is the test set, ``test`` without one.
    read : callable
        From that file to items by name.
    metrics : dict of str: Metric
        By name, the default first.
    validation : str
        Name in ``train_log.txt`` of the default metric on the validation set.
    extras : callable
        From a list of runs, each a dict of items, to further figures by column.
    few_speakers : bool
        Whether speakers are drawn without being asked for, where there are enough, and the quantiles are Student's.
    """

    name: str
    items: str
    scripts: tuple
    file: str
    read: Any
    metrics: dict
    validation: str
    extras: Any = lambda runs: {}
    few_speakers: bool = False

    @property
    def best(self):
        """``max`` or ``min``, by the direction of the default metric."""
        return max if next(iter(self.metrics.values())).higher else min

    def tests(self, folder):
        """The files that tests have left in a run's folder, by test set."""
        before, star, after = self.file.partition("*")
        found = sorted(Path(folder).glob(self.file))
        return {path.name[len(before) : -len(after)] if star else "test": path for path in found}


def _read_utterances(path):
    # in LibriSpeech's layout an id begins with the speaker's number
    return {
        name: Item({"WER": (one.errors, one.words)}, (name.split("-")[0],), one)
        for name, one in read_errors(path).items()
    }


def _read_clips(path):
    return {
        name: Item({"accuracy": (one.correct, 1)}, (one.speaker,), one)
        for name, one in read_predictions(path).items()
    }


def _read_mixtures(path):
    return {
        name: Item({metric: (value, 1) for metric, value in scores.items()}, (), scores)
        for name, scores in read_scores(path).items()
    }


def _read_trials(path):
    # a trial's label stands for its size, so that systems with other labels are told apart
    pairs, items = {}, {}
    for number, one in read_trial_scores(path).items():
        # both speakers of a trial, also where they are one; most trials share their pair with others
        speakers = tuple(speakers_of([one.enrolment, one.test]) or ())
        speakers = pairs.setdefault(speakers, speakers)
        scores = dict.fromkeys(VERIFICATION_METRICS, (one.score, one.label))
        items[f"{number} {one.enrolment} {one.test}"] = Item(scores, speakers, None)
    return items


def _eer(scores, labels):
    return _figure(scores, labels, lambda errors: errors.eer()[0])


def _min_dcf(p_target, scores, labels):
    return _figure(scores, labels, lambda errors: errors.min_dcf(p_target, normalise=True)[0])


def _figure(scores, labels, rate):
    errors = TrialErrors(labels, scores)

    def figure(weights):
        found = errors if weights is None else errors.weighted(weights)
        return None if found is None else rate(found)

    return figure


def _mean_macro_f1(runs):
    rows = ([item.row for item in run.values()] for run in runs)
    return {"macro F1 %": statistics.fmean(macro_f1(own) for own in rows)}


def _below_10_db(runs):
    gains = [statistics.fmean(run[name].scores["si-snr_i"][0] for run in runs) for name in runs[0]]
    return {"below 10 dB, %": 100 * statistics.fmean(gain < 10 for gain in gains)}


VERIFICATION_METRICS = {
    "EER": Metric("EER %", "points", 100, higher=False, figure=_eer),
    "minDCF": Metric("minDCF 0.01", "minDCF", higher=False, figure=partial(_min_dcf, 0.01)),
    "minDCF 0.05": Metric("minDCF 0.05", "minDCF", higher=False, figure=partial(_min_dcf, 0.05)),
}

TASKS = (
    Task(
        name="speech recognition",
        items="utterances",
        scripts=("LibriSpeech/ASR/train_CTC.py", "LibriSpeech/ASR/train_S2S.py"),
        file="errors_*.csv",
        read=_read_utterances,
        metrics={"WER": Metric("WER %", "points", 100, higher=False)},
        validation="valid WER",
    ),
    Task(
        name="separation",
        items="mixtures",
        scripts=("WSJ0Mix/separation/train.py", "WSJ0Mix/separation/train_wsj0mix.py"),
        file="test_results.csv",
        read=_read_mixtures,
        metrics={
            "si-snr_i": Metric("SI-SNRi, dB", "dB"),
            "sdr_i": Metric("SDRi, dB", "dB"),
            "si-snr": Metric("SI-SNR, dB", "dB", shown=False),
            "sdr": Metric("SDR, dB", "dB", shown=False),
            "stoi": Metric("STOI", "STOI", shown=False),
            "pesq": Metric("PESQ", "PESQ", shown=False),
        },
        validation="valid si-snr_i",
        extras=_below_10_db,
    ),
    Task(
        name="keyword spotting",
        items="clips",
        scripts=("SpeechCommands/KWS/train.py",),
        file="predictions_*.csv",
        read=_read_clips,
        metrics={"accuracy": Metric("accuracy %", "points", 100, proportion=True)},
        validation="valid accuracy",
        extras=_mean_macro_f1,
        few_speakers=True,
    ),
    Task(
        name="speaker verification",
        items="trials",
        scripts=("VoxCeleb/SV/train.py", "VoxCeleb/SV/distill.py"),
        file="scores_*.csv",
        read=_read_trials,
        metrics=VERIFICATION_METRICS,
        validation="valid EER",
        few_speakers=True,
    ),
)


def find_script(yaml):
    """The training script of a YAML file, by the file's place below ``hparams``.

    Arguments
    ---------
    yaml : str or Path
        ``hparams/DATASET/TASK/FILE.yaml``, which ``train.py`` of that recipe trains, or
        ``hparams/DATASET/TASK/KIND/FILE.yaml``, which ``train_KIND.py`` or ``KIND.py`` trains.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the file lies elsewhere, or there is no such script.
    """
    place = Path(yaml).resolve()
    hparams = ROOT / "hparams"
    parts = place.relative_to(hparams).parts if place.is_relative_to(hparams) else ()
    if len(parts) in (3, 4):
        names = (f"train_{parts[2]}.py", f"{parts[2]}.py") if len(parts) == 4 else ("train.py",)
        for name in names:
            script = ROOT / "recipes" / parts[0] / parts[1] / name
            if script.is_file():
                return script
    raise ValueError(
        f"{yaml}: does not lie in a recipe's folder of hparams: give its script as --script"
    )


def task_of_script(script):
    """The task that a script trains for.

    Raises
    ------
    ValueError
        If its tests leave no file with one row an item.
    """
    script = Path(script).resolve()
    for task in TASKS:
        if script in (ROOT / "recipes" / own for own in task.scripts):
            return task
    known = ", ".join(own for task in TASKS for own in task.scripts)
    raise ValueError(f"{script}: its systems cannot be compared; choose of {known}")


def task_of_run(folder):
    """The task of a tested run, by the files in its folder.

    Raises
    ------
    FileNotFoundError
        If it holds no test of any task.
    """
    for task in TASKS:
        if task.tests(folder):
            return task
    files = ", ".join(task.file for task in TASKS)
    raise FileNotFoundError(
        f"{folder}: is not the folder of a tested run, since it holds none of {files}"
    )
