"""From finished runs to the rows of a table: scores with intervals that say what they cover, and paired differences.

Clips of several left-out speakers are pooled; several seeds of one clip are averaged, since they are one clip still.
"""

import statistics
from collections import defaultdict

from mamba_speech.evaluation.bootstrap import grouped_mean
from mamba_speech.evaluation.classification import macro_f1, read_predictions, wilson_interval
from training.results import read_rows

# of a run's record
COLUMNS = ("parameters", "fidelity", "device", "train_seconds", "optimizer_steps")

# With five speakers of equal scores but for chance, one time in sixteen all lie on the same side of what they are drawn
# from, so that no resampling of five covers it in 95 cases of 100; six are the fewest that can.
FEWEST_SPEAKERS = 6


def read_runs(runs):
    """What the runs of one recipe have written, by seed, the clips of all left-out speakers together.

    Arguments
    ---------
    runs : list of runs.Run

    Returns
    -------
    (dict of int: dict of str: Prediction, list of dict)
        By seed and clip; and the test's rows of the records, ``results.json``.

    Raises
    ------
    OSError or ValueError
        If a run has no result, or its seeds were not tested on the same clips.
    """
    by_seed, results = defaultdict(dict), []
    for run in runs:
        rows = read_rows(run.folder, COLUMNS)
        if "test" not in rows:
            raise ValueError(f"{run.result}: tells of no test; remove {run.folder}")
        results.append(rows["test"])
        clips = read_predictions(run.folder / "predictions_test.csv")
        twice = clips.keys() & by_seed[run.seed].keys()
        if twice:
            raise ValueError(f"{run.folder}: {min(twice)} is in the test of another speaker, too")
        by_seed[run.seed] |= clips
    same_clips({f"seed {seed}": clips for seed, clips in by_seed.items()}, runs[0].recipe)
    return dict(by_seed), results


def same_clips(tests, where):
    """Refuse tests on different clips.

    Arguments
    ---------
    tests : dict of str: dict
        Clips by the test's name.
    where : str
        For the message.

    Raises
    ------
    ValueError
        Naming the first clip that is not in all of them.
    """
    (first, clips), *others = tests.items()
    for name, other in others:
        different = clips.keys() ^ other.keys()
        if different:
            raise ValueError(
                f"{where}: {first} and {name} were not tested on the same clips: {min(different)} is in one of "
                f"them only, and {len(different) - 1} more"
            )


def shares(by_seed):
    """In which part of the seeds each clip was right, by clip."""
    first = next(iter(by_seed.values()))
    return {
        clip: statistics.fmean(run[clip].correct for run in by_seed.values())
        for clip in sorted(first)
    }


def drawing(speakers):
    """``speakers`` if there are enough of them to draw from, else ``clips``."""
    return "speakers" if len(set(speakers)) >= FEWEST_SPEAKERS else "clips"


def score(by_seed, resamples=10_000):
    """Accuracy with its interval, macro F1, and each speaker's accuracy.

    Arguments
    ---------
    by_seed : dict of int: dict of str: Prediction
    resamples : int

    Returns
    -------
    dict
        In %. ``drawn`` says what the interval covers: other clips of these speakers (Wilson's interval of so many clips
        as there are, however many seeds), or other speakers (a bootstrap over them, and at least Wilson's). No
        interval covers other seeds: ``accuracies`` has theirs, and ``deviation`` is that between them.
    """
    right = shares(by_seed)
    clips = next(iter(by_seed.values()))
    speakers = [clips[clip].speaker for clip in right]
    low, high = wilson_interval(sum(right.values()), len(right))
    drawn = drawing(speakers)
    if drawn == "speakers":
        found = grouped_mean(list(right.values()), speakers, resamples)
        low, high = min(low, found.low), max(high, found.high)
    accuracies = [
        100 * statistics.fmean(one.correct for one in run.values()) for run in by_seed.values()
    ]
    by_speaker = defaultdict(list)
    for speaker, share in zip(speakers, right.values(), strict=True):
        by_speaker[speaker].append(100 * share)
    return {
        "clips": len(right),
        "accuracy": 100 * statistics.fmean(right.values()),
        "low": 100 * low,
        "high": 100 * high,
        "drawn": drawn,
        "accuracies": accuracies,
        "deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "macro_F1": statistics.fmean(macro_f1(run.values()) for run in by_seed.values()),
        "speakers": {name: statistics.fmean(by_speaker[name]) for name in sorted(by_speaker)},
    }


def difference(against, by_seed, resamples=10_000):
    """How much more often the second recipe is right than the first, clip by clip, in points of per cent.

    Arguments
    ---------
    against, by_seed : dict of int: dict of str: Prediction
    resamples : int

    Returns
    -------
    dict
        ``difference``, its 95 % interval ``low`` and ``high``, ``p``, what was ``drawn``, each speaker's difference.

    Raises
    ------
    ValueError
        If the recipes were not tested on the same clips.
    """
    first, second = shares(against), shares(by_seed)
    same_clips({"the one": first, "the other": second}, "paired difference")
    clips = next(iter(by_seed.values()))
    gains = [100 * (second[clip] - first[clip]) for clip in second]
    speakers = [clips[clip].speaker for clip in second]
    drawn = drawing(speakers)
    found = grouped_mean(gains, speakers if drawn == "speakers" else list(second), resamples)
    by_speaker = defaultdict(list)
    for speaker, gain in zip(speakers, gains, strict=True):
        by_speaker[speaker].append(gain)
    return {
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "drawn": drawn,
        "speakers": {name: statistics.fmean(by_speaker[name]) for name in sorted(by_speaker)},
    }


def table_line(row, speaker_columns):
    """A row as a line of the table.

    Arguments
    ---------
    row : dict
        Of :func:`score`, with what the trainings took.
    speaker_columns : bool
        Whether each speaker's accuracy has a column.
    """
    spread = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
    line = {"recipe": row["recipe"], "parameters": f"{row['parameters']:,}", "runs": row["runs"]}
    line |= {"test clips": row["clips"], "accuracy %": f"{row['accuracy']:.2f}{spread}"}
    line["95 % interval"] = f"{row['low']:.1f} to {row['high']:.1f}, other {row['drawn']}"
    by_speaker = row["speakers"]
    if row["drawn"] == "clips" and len(by_speaker) > 1:
        line["speakers %"] = f"{min(by_speaker.values()):.1f} to {max(by_speaker.values()):.1f}"
    line |= {"macro F1 %": f"{row['macro_F1']:.2f}"}
    line |= {"training, s": f"{statistics.fmean(row['train_seconds']):.0f}"}
    line |= {"steps": round(statistics.fmean(row["optimizer_steps"]))}
    if speaker_columns:
        line |= {f"{name} %": f"{share:.1f}" for name, share in by_speaker.items()}
    return line


def difference_line(recipe, against, found):
    """A difference of :func:`difference` as a line of the table."""
    better = sum(gain > 0 for gain in found["speakers"].values())
    return {
        "recipe": recipe,
        "against": against,
        "difference, points": f"{found['difference']:+.2f}",
        "95 % interval": f"{found['low']:+.2f} to {found['high']:+.2f}, other {found['drawn']}",
        "p": f"{found['p']:.4f}",
        "better for": f"{better} of {len(found['speakers'])} speakers",
    }
