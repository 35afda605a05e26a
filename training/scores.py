"""From tested runs to the rows of a table: figures with intervals that say what they cover, and paired differences.

Items of runs that share a seed are pooled. Seeds of one item are averaged, since they are one item still.
"""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mamba_speech.files import read_csv
from mamba_speech.run import OPTIONS_FILE, read_options
from mamba_speech.train_log import read_train_log
from training.aliases import name_here
from training.intervals import difference, interval, whole_figure
from training.options import read_keys
from training.results import read_rows

# columns of a run's record
NEEDED = ("parameters", "fidelity", "device", "train_seconds", "optimizer_steps")
# One time in sixteen, five speakers all lie on one side of the truth, and no resampling of them covers it. So five
# speakers cannot give a 95 % interval, and six are the fewest that can.
FEWEST_SPEAKERS = 6


class TestedRun(NamedTuple):
    """What training and test have left in a run's folder.

    ``rows`` of the record and test ``items`` are held by test set. ``curve`` holds minutes of training and figures of
    validation, one pair an epoch. ``best`` is the best figure, ``value`` the value of a chosen option.
    """

    folder: Path
    seed: int
    rows: dict
    items: dict
    curve: list
    best: float | None
    value: object = None

    @property
    def row(self):
        """The record's row of the first test set."""
        return next(iter(self.rows.values()))

    def told(self):
        """The run as a line of a table."""
        told = {"folder": str(self.folder), "value": self.value, "seed": self.seed}
        told |= {"epochs": len(self.curve), "validation": self.best}
        return told | {name: self.row[name] for name in ("train_seconds", "optimizer_steps")}


def read_run(task, folder, seed=None, option=None):
    """Read a run's folder.

    Arguments
    ---------
    task : training.tasks.Task
    folder : str or Path
    seed : int, optional
        Seed of the training. The record names it by default.
    option : str, optional
        Name of an option whose value is read, too.

    Returns
    -------
    TestedRun

    Raises
    ------
    OSError or ValueError
        If a file is missing or damaged, or the record tells of no test.
    """
    folder = Path(folder)
    rows = read_rows(folder, NEEDED)
    if not rows:
        raise ValueError(f"{folder / 'results.json'}: tells of no test; let the script test it")
    files, items = task.tests(folder), {}
    for name in rows:
        if name not in files:
            wanted = folder / task.file.replace("*", name)
            raise FileNotFoundError(f"{wanted}: no such file; the test of the training writes it")
        items[name] = task.read(files[name])
    if seed is None:
        seed = next(iter(rows.values())).get("seed", str(folder))
    log = folder / "train_log.txt"
    minutes, curve = 0.0, []
    for epoch in read_train_log(log) if log.is_file() else ():
        minutes += epoch.get("train seconds", 0.0) / 60
        if task.validation in epoch:
            curve.append((minutes, epoch[task.validation]))
    value = value_of(folder, option) if option else None
    if option and not curve:
        raise ValueError(f"{log}: tells of no {task.validation} to choose by")
    best = task.best((figure for _, figure in curve), default=None)
    return TestedRun(folder, seed, rows, items, curve, best, value)


def value_of(folder, option):
    """The value of a run's option, which may be given by its published name.

    Raises
    ------
    OSError or ValueError
        If the folder holds no options, or not this one.
    """
    read_options(folder, [])
    file = folder / OPTIONS_FILE
    known = read_keys(file)
    name = name_here(option, known)
    if name not in known:
        raise ValueError(f"--choose {option}: {file} has no such option")
    return read_options(folder, [name])[name]


def best_of(runs, task):
    """The runs of one system whose option's value is best in validation, on average over its seeds."""
    by_value = defaultdict(list)
    for run in runs:
        by_value[run.value].append(run)
    return task.best(by_value.values(), key=lambda own: statistics.fmean(run.best for run in own))


def read_speakers(path):
    """Who is heard in each item, from a CSV file such as the mixture lists of ``data_prep.mixtures``.

    Arguments
    ---------
    path : Path
        Columns ``mix_id`` or ``ID``, and ``spk1``, ``spk2`` and so on; others are passed over.

    Returns
    -------
    dict of str: tuple of str

    Raises
    ------
    OSError or ValueError
        If it cannot be read, lacks these columns, holds no item, or holds one twice.
    """
    found = {}
    try:
        columns, lines = read_csv(path, skip_spaces=True)
        rows = [row for _, row in lines]
    except ValueError as error:
        raise ValueError(f"--speakers {error}") from error
    key = next((name for name in ("mix_id", "ID") if name in columns), None)
    heard = [name for name in columns if name.startswith("spk") and name[3:].isdigit()]
    if key is None or not heard:
        raise ValueError(f"--speakers {path}: needs the columns mix_id or ID, and spk1, ...")
    for row in rows:
        if row[key] in found:
            raise ValueError(f"--speakers {path}: {row[key]} stands there twice")
        found[row[key]] = tuple(filter(None, (row[name] for name in heard)))
    if not found:
        raise ValueError(f"--speakers {path}: holds no item")
    return found


class Figures:
    """One system on one test set: its items, and their scores averaged over seeds.

    Arguments
    ---------
    runs : list of TestedRun
    test_set : str
    name : str
        The system, for messages.

    Raises
    ------
    ValueError
        If two runs of one seed have an item in common, or seeds were not tested on the same items.
    """

    def __init__(self, runs, test_set, name):
        by_seed = defaultdict(dict)
        for run in runs:
            items, known = run.items[test_set], by_seed[run.seed]
            twice = items.keys() & known.keys()
            if twice:
                raise ValueError(
                    f"{run.folder}: {name} has another run of seed {run.seed} with the test item {min(twice)}: "
                    "make it a system of its own, or choose between them by --choose OPTION"
                )
            known |= items
        self.by_seed = dict(by_seed)
        seeds = {f"{name}, seed {seed}": items for seed, items in self.by_seed.items()}
        refuse_other_items(seeds)
        self.items = next(iter(seeds.values()))
        # sorted, so that the draws do not depend on the order in which items were tested
        self.names = sorted(self.items)

    def has(self, metric):
        """Whether every item was scored with it."""
        return all(metric in one.scores for run in self.by_seed.values() for one in run.values())

    def scores(self, metric):
        """Scores of each seed, (seeds, items), and sizes, (items,)."""
        scores = [
            [run[name].scores[metric][0] for name in self.names] for run in self.by_seed.values()
        ]
        return np.array(scores, float), [self.items[name].scores[metric][1] for name in self.names]

    def groups(self, draw, speakers, few_speakers):
        """What is drawn, ``speakers`` or ``items``, and the speakers of each item or None.

        Raises
        ------
        ValueError
            If speakers are to be drawn, and an item's speakers are not known.
        """
        heard = [
            self.items[name].speakers if speakers is None else speakers.get(name, ())
            for name in self.names
        ]
        if draw is None:
            distinct = {who for own in heard for who in own}
            enough = few_speakers and len(distinct) >= FEWEST_SPEAKERS
            draw = "speaker" if speakers is not None or enough else "item"
        if draw == "item":
            return "items", None
        unknown = [name for name, own in zip(self.names, heard, strict=True) if not own]
        if unknown:
            raise ValueError(
                f"--draw speaker: who is heard in {unknown[0]} is not known, nor in {len(unknown) - 1} more; "
                "--speakers FILE names them"
            )
        single = all(len(own) == 1 for own in heard)
        return "speakers", [own[0] for own in heard] if single else heard

    def by_speaker(self, values, sizes, scale):
        """The figure of each speaker, where one speaker is heard in an item."""
        sums = defaultdict(lambda: [0.0, 0.0])
        for name, value, size in zip(self.names, values, sizes, strict=True):
            if len(self.items[name].speakers) == 1:
                total = sums[self.items[name].speakers[0]]
                total[0] += value
                total[1] += size
        return {who: scale * value / max(size, 1) for who, (value, size) in sorted(sums.items())}


def refuse_other_items(tests):
    """Refuse tests on other items than the first's, or on items of other sizes.

    Arguments
    ---------
    tests : dict of str: dict of str: training.tasks.Item
        By what the message is to name.

    Raises
    ------
    ValueError
        Naming the first item that differs.
    """
    (first, items), *others = tests.items()
    for name, other in others:
        different = items.keys() ^ other.keys()
        different = different or {
            key
            for key, item in items.items()
            for metric, (_, size) in item.scores.items()
            if other[key].scores.get(metric, (0, size))[1] != size
        }
        if different:
            raise ValueError(
                f"{first} and {name} were not tested on the same items: {min(different)} differs, and "
                f"{len(different) - 1} more"
            )


def compare(tested, options):
    """One row a test set and system; other systems are compared with ``options.against``.

    Arguments
    ---------
    tested : dict of str: list of TestedRun
        By system.
    options : argparse.Namespace
        ``task``, ``metric``, ``against``, ``draw``, ``speakers`` (by item, or None) and ``resamples``.

    Returns
    -------
    list of dict
        ``mean`` is over all runs, with its 95 % interval over what is ``drawn``; no interval covers other seeds:
        ``by_seed`` has each one's figure, and ``deviation`` is theirs.

    Raises
    ------
    ValueError
        If the systems have no test set in common, or were not tested on the same items.
    """
    sets = [set(run.items) for own in tested.values() for run in own]
    common = [name for name in next(iter(tested.values()))[0].items if all(name in s for s in sets)]
    if not common:
        raise ValueError("the systems have no test set in common")
    rows = []
    for test_set in common:
        figures = {name: Figures(own, test_set, name) for name, own in tested.items()}
        refuse_other_items({name: one.items for name, one in figures.items()})
        for name, one in figures.items():
            row = describe(tested[name], test_set, name) | summarise(one, options)
            if options.against in figures and name != options.against:
                row["difference"] = difference(figures[options.against], one, options)
            rows.append(row)
    return rows


def describe(runs, test_set, name):
    """What the records tell of a system's runs."""
    rows = [run.rows[test_set] for run in runs]
    row = {"test set": test_set, "system": name, "runs": len(runs)}
    row |= {"seeds": list(dict.fromkeys(run.seed for run in runs)), "value": runs[0].value}
    row |= {key: rows[0][key] for key in ("parameters", "fidelity", "device")}
    row |= {key: [one[key] for one in rows] for key in ("train_seconds", "optimizer_steps")}
    return row | {"validation": [run.best for run in runs]}


def summarise(figures, options):
    """A system's figures on a test set: the metric with its interval, and the task's others."""
    task, metric = options.task, options.task.metrics[options.metric]
    if not figures.has(options.metric):
        raise ValueError(f"--metric {options.metric}: not every item was scored with it")
    scores, sizes = figures.scores(options.metric)
    by_seed = [whole_figure(metric, one, sizes) for one in scores]
    found, drawn = interval(figures, options.metric, options)
    row = {"items": len(figures.names), "mean": found.estimate, "low": found.low}
    row |= {"high": found.high, "drawn": drawn, "by_seed": by_seed}
    row["deviation"] = statistics.stdev(by_seed) if len(by_seed) > 1 else None
    row["speakers"] = figures.by_speaker(scores.mean(0), sizes, metric.scale)
    others = [name for name in task.metrics if name != options.metric and figures.has(name)]
    row["others"] = {name: interval(figures, name, options)[0]._asdict() for name in others}
    return row | {"extras": task.extras(list(figures.by_seed.values()))}
