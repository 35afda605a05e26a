#!/usr/bin/env python3
"""Compare trained and tested runs: which separates better, by how much, how sure that is, and after how long.

    python compare.py mambatasnet=results/mamba_a,results/mamba_b sepformer=results/sepformer_a,results/sepformer_b \\
        --list mixtures/lists/tt.csv --out results/compare

Of a system's runs, those with the learning rate of the best validation are compared; several seeds with that rate are
averaged mixture by mixture. Everything is read from what train.py has written into the runs' folders.
"""

import argparse
import shlex
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from data_prep.mixtures.lists import read_list
from mamba_speech.evaluation.separation import read_scores
from mamba_speech.evaluation.speaker_bootstrap import mean_with_interval, paired_difference
from mamba_speech.evaluation.tables import as_text
from mamba_speech.figures import curves, read_train_log
from mamba_speech.files import write_json
from mamba_speech.run import read_options
from training.results import read_rows

GAINS = ("si-snr_i", "sdr_i")
# of a run's record
COLUMNS = ("parameters", "fidelity", "seed", "optimizer_steps", "train_seconds", "device")


class Run(NamedTuple):
    """What train.py has left in a run's folder.

    ``scores`` are rows of ``test_results.csv`` by mixture, without their average; ``epochs`` the lines of
    ``train_log.txt``; ``result`` the test's row of the record, ``results.json``; ``lr`` the option.
    """

    folder: Path
    lr: float
    result: dict
    scores: dict
    epochs: list

    @property
    def validation(self):
        """The best SI-SNR gain in validation, in dB."""
        return max(epoch["valid si-snr_i"] for epoch in self.epochs)

    @classmethod
    def read(cls, folder):
        """Read a run's folder.

        Raises
        ------
        FileNotFoundError
            If a file is missing; the sentence says which stage writes it.
        ValueError
            If a file is not what train.py writes.
        """
        folder = Path(folder)
        lr = read_options(folder, ["lr"])["lr"]
        for name, stage in (
            ("train_log.txt", "training"),
            ("results.json", "test"),
            ("test_results.csv", "test"),
        ):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder / name}: no such file; the {stage} stage of train.py writes it"
                )
        epochs = read_train_log(folder / "train_log.txt")
        if "valid si-snr_i" not in epochs[-1]:
            raise ValueError(f"{folder / 'train_log.txt'}: is not of a separation run")
        rows = read_rows(folder, COLUMNS)
        if "test" not in rows:
            raise ValueError(
                f"{folder / 'results.json'}: tells of no test; let train.py test the run again"
            )
        return cls(folder, lr, rows["test"], read_scores(folder / "test_results.csv"), epochs)


class System(NamedTuple):
    """A name, and the folders of its runs."""

    name: str
    folders: list

    @classmethod
    def parse(cls, text):
        """Read ``name=FOLDER,FOLDER,...``.

        Raises
        ------
        argparse.ArgumentTypeError
            If it is not written so.
        """
        name, _, folders = text.partition("=")
        if not name or not folders:
            raise argparse.ArgumentTypeError(f"{text}: write name=FOLDER or name=FOLDER,FOLDER,...")
        return cls(name, folders.split(","))


def main(arguments=None):
    """Compare, write the tables and the picture, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "systems",
        metavar="NAME=RUN,RUN,...",
        nargs="+",
        type=System.parse,
        help="folders of runs; the first system is what the others are compared with",
    )
    parser.add_argument(
        "--list",
        type=Path,
        help="list of the test mixtures, which says who speaks in each: the intervals are then over speakers",
    )
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="output folder")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    options = parser.parse_args(arguments)
    names = [system.name for system in options.systems]
    if len(set(names)) < len(names):
        parser.error("a name stands for one system: write its runs with commas between them")
    command = shlex.join(
        ["python", "compare.py", *(sys.argv[1:] if arguments is None else arguments)]
    )
    try:
        speakers = None
        if options.list is not None:
            speakers = {mixture.id: mixture.speakers for mixture in read_list(options.list)}
        systems = {
            system.name: [Run.read(folder) for folder in system.folders]
            for system in options.systems
        }
        rows = compare(systems, speakers, options.resamples)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = "mixtures" if speakers is None else "speakers"
    write_json(options.out / "compare.json", {"command": command, "draw": drawn, "rows": rows})
    table = [table_line(row) for row in rows]
    write_json(options.out / "measured.json", table)
    write_json(options.out / "measured_rates.json", rates(systems))
    print(as_text(table))
    try:
        draw(systems, options.out / "validation.png")
    except RuntimeError as error:
        print(error, file=sys.stderr)
    return 0


def at_best_rate(runs):
    """The runs of one system whose learning rate is best in validation, on average over its seeds."""
    by_rate = {}
    for run in runs:
        by_rate.setdefault(run.lr, []).append(run)
    return max(by_rate.values(), key=lambda own: statistics.mean(run.validation for run in own))


def gains(runs, column):
    """A column of the runs' scores by mixture, averaged over the runs.

    Raises
    ------
    ValueError
        If the runs were not tested on the same mixtures.
    """
    different = set().union(*(run.scores for run in runs)) - set.intersection(
        *(set(run.scores) for run in runs)
    )
    if different:
        raise ValueError(
            f"{runs[0].folder} and the runs beside it were not tested on the same mixtures: {min(different)} is not in "
            "all of them"
        )
    return {
        name: statistics.fmean(run.scores[name][column] for run in runs) for name in runs[0].scores
    }


def compare(systems, speakers=None, resamples=10_000):
    """One row a system, at its best learning rate; the first system is what the others are compared with.

    Arguments
    ---------
    systems : dict of str: list of Run
    speakers : dict of str: tuple of str, optional
        Who speaks in each mixture; mixtures are drawn by default.
    resamples : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        Gains in dB with their 95 % intervals, differences to the first system in dB with interval and p, and what the
        training took.

    Raises
    ------
    ValueError
        If the systems were not tested on the same mixtures, or a mixture's speakers are not known.
    """
    rows, first = [], None
    for name, runs in systems.items():
        chosen = at_best_rate(runs)
        result = chosen[0].result
        row = {"system": name, "parameters": result["parameters"], "fidelity": result["fidelity"]}
        row |= {"lr": chosen[0].lr, "seeds": [run.result["seed"] for run in chosen]}
        row |= {"rates_tried": len({run.lr for run in runs}), "mixtures": len(chosen[0].scores)}
        row |= {"optimizer_steps": [run.result["optimizer_steps"] for run in chosen]}
        row |= {"train_seconds": [run.result["train_seconds"] for run in chosen]}
        row |= {"device": result["device"], "validation": [run.validation for run in chosen]}
        for column in GAINS:
            if all(column in one for run in chosen for one in run.scores.values()):
                values = gains(chosen, column)
                row[column] = mean_with_interval(values, speakers, resamples)._asdict()
        values = gains(chosen, "si-snr_i")
        row["below_10_dB"] = 100 * statistics.mean(value < 10 for value in values.values())
        if first is None:
            first = values
        else:
            row["difference"] = paired_difference(first, values, speakers, resamples)._asdict()
        rows.append(row)
    return rows


def table_line(row):
    """A row of :func:`compare` as a line of the README's table."""
    line = {"system": row["system"], "parameters": row["parameters"]}
    line |= {"learning rate": f"{row['lr']:g}", "seeds": len(row["seeds"])}
    line |= {"training, min": f"{statistics.mean(row['train_seconds']) / 60:.0f}"}
    line |= {"steps": round(statistics.mean(row["optimizer_steps"]))}
    line |= {"validation SI-SNRi, dB": f"{statistics.mean(row['validation']):.2f}"}
    for column in GAINS:
        cell = (
            ""
            if column not in row
            else "{mean:.2f} ({low:.2f} to {high:.2f})".format(**row[column])
        )
        line[f"test {column.upper().replace('_I', 'i')}, dB"] = cell
    line["below 10 dB, %"] = f"{row['below_10_dB']:.0f}"
    line["difference, dB"] = (
        "{difference:+.2f} ({low:+.2f} to {high:+.2f}), p {p:.4f}".format(**row["difference"])
        if "difference" in row
        else ""
    )
    return line


def rates(systems):
    """One line a run: with which learning rate it came how far in validation."""
    return [
        {
            "system": name,
            "learning rate": f"{run.lr:g}",
            "seed": str(run.result["seed"]),
            "training, min": f"{run.result['train_seconds'] / 60:.0f}",
            "epochs": len(run.epochs),
            "best validation SI-SNRi, dB": f"{run.validation:.2f}",
        }
        for name, runs in systems.items()
        for run in sorted(runs, key=lambda run: (run.lr, run.result["seed"]))
    ]


def draw(systems, png):
    """Draw the validation's SI-SNR gain of each system, at its best learning rate, by minutes of training."""
    lines = {}
    for name, runs in systems.items():
        run = at_best_rate(runs)[0]
        minutes, points = 0.0, []
        for epoch in run.epochs:
            minutes += epoch["train seconds"] / 60
            points.append((minutes, epoch["valid si-snr_i"]))
        lines[name] = points
    curves(lines, png, "minutes of training", "SI-SNR gain in dB", "Validation")


if __name__ == "__main__":
    sys.exit(main())
