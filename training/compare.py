"""Compare systems of one task: train them with several seeds, or read finished runs, and test the differences.

    python -m training.compare small=hparams/mini.yaml plain=hparams/mini.yaml,fidelity=upstream \\
        --seeds 1,2,3 --out results/compare --data_folder CORPUS
    python -m training.compare mamba=results/m1,results/m2 sepformer=results/s1,results/s2 --out results/compare

A system is NAME=FILE.yaml[,option=value]... or NAME=FOLDER[,FOLDER]... Options that this command does not know go to
every training script. The same command again goes on where it was stopped.
"""

import argparse
import re
import shlex
import signal
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from mamba_speech.arguments import jobs, whole_number
from mamba_speech.arguments import seed as read_seed
from mamba_speech.audio.names import safe_streams
from mamba_speech.evaluation.tables import as_markdown, as_text
from mamba_speech.figures import curves
from mamba_speech.files import write_json, write_text
from training.aliases import name_here
from training.launch import Run, run_all
from training.options import hint, read_keys
from training.scores import best_of, compare, read_run, read_speakers
from training.tasks import find_script, task_of_run, task_of_script

RESERVED = {"seed": "--seeds", "output_folder": "--out"}
# commas within brackets are the value's
COMMA = r",(?![^\[]*\])"


class System(NamedTuple):
    """A name, with the YAML file, its script and options of its own, or with folders of finished runs."""

    name: str
    yaml: Path | None
    options: dict
    folders: tuple

    @classmethod
    def parse(cls, text):
        """Read ``NAME=FILE.yaml[,option=value]...`` or ``NAME=FOLDER[,FOLDER]...``.

        Raises
        ------
        argparse.ArgumentTypeError
            If it is written otherwise, or names no file and no folder.
        """
        name, _, rest = text.partition("=")
        first, *parts = re.split(COMMA, rest)
        if not re.fullmatch(r"\w[\w.-]*", name) or not first:
            raise argparse.ArgumentTypeError(
                f"{text}: write NAME=FILE.yaml[,option=value]... or NAME=FOLDER[,FOLDER]..., systems before options"
            )
        if Path(first).is_dir():
            missing = [part for part in parts if not Path(part).is_dir()]
            if missing:
                raise argparse.ArgumentTypeError(f"{name}: {missing[0]}: no such folder")
            folders = tuple(map(Path, (first, *parts)))
            if len({folder.resolve() for folder in folders}) < len(folders):
                raise argparse.ArgumentTypeError(f"{name}: names one folder twice")
            return cls(name, None, {}, folders)
        if not Path(first).is_file():
            raise argparse.ArgumentTypeError(f"{name}: {first}: no such YAML file or folder")
        options = {}
        for part in parts:
            option, equals, value = part.partition("=")
            if not equals or not re.fullmatch(r"\w+", option):
                raise argparse.ArgumentTypeError(f"{name}: {part}: write option=value")
            if option in RESERVED or option in options:
                by = RESERVED.get(option)
                problem = f"is set by {by}" if by else "is given twice"
                raise argparse.ArgumentTypeError(f"{name}: {option} {problem}")
            options[option] = value
        return cls(name, Path(first), options, ())


def main(arguments=None):
    """Run, read, compare, write and print; returns the exit status."""
    safe_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    options, passed_on = read_arguments(arguments)
    options.command = shlex.join(["python", "-m", "training.compare", *arguments])
    try:
        runs = {one.name: training_runs(one, options, passed_on) for one in options.systems}
        # seed by seed, so that a comparison that is cut short has as many of each
        in_turn = sorted((run for own in runs.values() for run in own), key=lambda run: run.seed)
        for run in in_turn:
            run.check()
        failed = run_all(in_turn, options.jobs, options.metric)
        for run in failed:
            print(f"{run.name} failed; see {run.log}", file=sys.stderr)
        # fewer runs than the others have would make another figure
        folders = {
            system.name: [(run.folder, run.seed) for run in runs[system.name]]
            or [(folder, None) for folder in system.folders]
            for system in options.systems
            if not set(runs[system.name]) & set(failed)
        }
        if not folders:
            print("no system has all its runs, so there is no table", file=sys.stderr)
            return 1
        tested = {
            name: [read_run(options.task, folder, seed, options.choose) for folder, seed in own]
            for name, own in folders.items()
        }
        write_tables(tested, options)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command again goes on", file=sys.stderr)
        return 130
    return 1 if failed else 0


def make_parser():
    """The options of the command itself."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare",
        # short, since every error begins with it
        usage="%(prog)s SYSTEM [SYSTEM ...] [--option value ...]",
        description=__doc__.partition("A system is")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # a prefix is not an abbreviation: --seed is an option of the training scripts
        allow_abbrev=False,
        epilog="Every other option goes to the training scripts: --data_folder, --number_of_epochs, ...",
    )
    add = parser.add_argument
    add(
        "systems",
        metavar="SYSTEM",
        nargs="+",
        type=System.parse,
        help="NAME=FILE.yaml[,option=value]... to train, or NAME=FOLDER[,FOLDER]... of finished runs",
    )
    add("--seeds", type=_seeds, help="seeds of the trainings, 1,2,3 by default")
    add(
        "--out",
        type=Path,
        default=Path("results/compare"),
        help="output folder, results/compare by default",
    )
    add("--script", type=Path, help="training script of YAML files that lie outside hparams")
    add(
        "--each",
        type=_option_values,
        metavar="OPTION=VALUE,VALUE...",
        help="option and values: each system trains once with every value. Their test items are pooled, as with "
        "test_speaker=george,jackson, unless --choose takes one value, as with lr=0.001,0.002",
    )
    add("--choose", metavar="OPTION", help="option whose best value in validation is compared")
    add(
        "--metric",
        help="metric of the differences, such as sdr_i; by default WER, si-snr_i, accuracy or EER",
    )
    add(
        "--against", metavar="NAME", help="system that the others are compared with, else the first"
    )
    add(
        "--draw",
        choices=("item", "speaker"),
        help="unit of the bootstrap: by default speakers where --speakers names them, and from six speakers on in "
        "keyword spotting and speaker verification, else items",
    )
    add(
        "--speakers",
        type=Path,
        help="CSV file that names the speakers of each item: columns mix_id (or ID), spk1, spk2, ...",
    )
    add("--jobs", type=jobs, default=1, help="number of trainings side by side, 1 by default")
    add(
        "--resamples",
        type=whole_number(100, 10_000_000),
        default=10_000,
        help="number of draws of the bootstrap, 10,000 by default",
    )
    return parser


def _seeds(text):
    try:
        seeds = [read_seed(part) for part in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; write seeds such as 1,2,3") from error
    for one in seeds:
        if seeds.count(one) > 1:
            raise argparse.ArgumentTypeError(f"names {one} twice")
    return seeds


def _option_values(text):
    name, equals, values = text.partition("=")
    values = re.split(COMMA, values)
    if not equals or not re.fullmatch(r"\w+", name) or name in RESERVED:
        raise argparse.ArgumentTypeError(f"{text}: write option=value,value,...")
    for value in values:
        if not re.fullmatch(r"\w[\w.-]*", value) or values.count(value) > 1:
            raise argparse.ArgumentTypeError(f"{text}: {value!r} stands there twice or is no word")
    return name, values


def read_arguments(arguments):
    """The options, with the task and the script of each system found, and those that are the training script's."""
    parser = make_parser()
    options, passed_on = parser.parse_known_args(arguments)
    given = [part[2:].partition("=")[0] for part in passed_on if part.startswith("--")]
    reserved = RESERVED | ({options.each[0]: "--each"} if options.each else {})
    names = [system.name for system in options.systems]
    for system in options.systems:
        if names.count(system.name) > 1:
            parser.error(f"{system.name} names two systems")
        for name in system.options.keys() & {*given, *reserved}:
            parser.error(f"{system.name}: {name} is set by {reserved.get(name, f'--{name}')}, too")
    for name in given:
        if name in reserved:
            parser.error(f"--{name} is set by {reserved[name]}")
    trained = [system for system in options.systems if system.yaml]
    if not trained:
        for name in ("seeds", "each", "script"):
            passed_on += [f"--{name}"] * (getattr(options, name) is not None)
        if passed_on:
            parser.error(
                f"every system is of finished runs, so nothing is trained with {shlex.join(passed_on)}"
            )
    options.seeds = options.seeds or [1, 2, 3]
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out {options.out}: is no folder")
    if options.against not in (None, *names):
        parser.error(f"--against {options.against} is not among the systems: {', '.join(names)}")
    options.against = options.against or names[0]
    try:
        options.task = common_task(options)
        options.metric = options.metric or next(iter(options.task.metrics))
        if options.metric not in options.task.metrics:
            known = ", ".join(options.task.metrics)
            raise ValueError(f"--metric {options.metric}: {options.task.name} has {known}")
        if options.speakers is not None:
            options.speakers = read_speakers(options.speakers)
        for system in trained if options.choose else ():
            known = read_keys(system.yaml)
            if name_here(options.choose, known) not in known:
                raise ValueError(
                    f"--choose {options.choose}: {system.yaml} has no such option"
                    f"{hint(options.choose, known)}"
                )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options, passed_on


def common_task(options):
    """The task of all systems.

    Raises
    ------
    OSError or ValueError
        If a system's task is not known, or is another one than the first's.
    """
    found = []
    for system in options.systems:
        if system.yaml:
            script = options.script or find_script(system.yaml)
            found.append((system.name, task_of_script(script)))
        found += [(f"{system.name}, {folder},", task_of_run(folder)) for folder in system.folders]
    (first, task), *others = found
    for name, other in others:
        if other is not task:
            raise ValueError(
                f"{first} is of {task.name} and {name} of {other.name}: compare systems of one task"
            )
    return task


def training_runs(system, options, passed_on):
    """The trainings of a system: one a seed and value of ``--each``; none, if its runs are finished."""
    if not system.yaml:
        return []
    script = options.script or find_script(system.yaml)
    own = [word for name, value in system.options.items() for word in (f"--{name}", value)]
    # a bar of progress is no use in a file
    quiet = () if "--noprogressbar" in passed_on else ("--noprogressbar",)
    runs = []
    name, values = options.each or (None, [None])
    for seed in options.seeds:
        for value in values:
            words = ["--seed", str(seed), *((f"--{name}", value) if name else ()), *own]
            folder = options.out / system.name / (value or "") / str(seed)
            words = (*words, *passed_on, *quiet)
            runs.append(Run(system.name, script, system.yaml, words, folder, seed, value))
    return runs


def write_tables(tested, options):
    """Compare tested runs; write ``compare.json``, ``compare.md`` and ``validation.png``, and print the tables.

    Arguments
    ---------
    tested : dict of str: list of training.scores.TestedRun
        By system.
    options : argparse.Namespace
    """
    runs = [{"system": name} | run.told() for name, own in tested.items() for run in own]
    if options.choose:
        tested = {name: best_of(own, options.task) for name, own in tested.items()}
    rows = compare(tested, options)
    if options.against not in tested:
        print(f"{options.against} has not all its runs: no differences to it", file=sys.stderr)
    speakers = options.each is not None and not options.choose
    tables = [[table_line(row, options, speakers) for row in rows]]
    pairs = [difference_line(row, options) for row in rows if "difference" in row]
    tables += [pairs] if pairs else []
    tables += [[tried_line(run, options.choose) for run in runs]] if options.choose else []
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"command": options.command, "task": options.task.name, "metric": options.metric}
    record |= {"against": options.against, "choose": options.choose, "rows": rows}
    write_json(options.out / "compare.json", record | {"runs": runs})
    text = [f"`{options.command}`", *(as_markdown(table) for table in tables)]
    write_text(options.out / "compare.md", "\n\n".join(text) + "\n")
    print("\n\n".join(as_text(table) for table in tables))
    lines = {name: own[0].curve for name, own in tested.items() if own[0].curve}
    if lines:
        label = options.task.validation.removeprefix("valid ")
        try:
            png = options.out / "validation.png"
            curves(lines, png, "minutes of training", label, "Validation")
        except RuntimeError as error:
            print(error, file=sys.stderr)


def table_line(row, options, speaker_columns=False):
    """A row of :func:`compare` as a line of the table.

    Arguments
    ---------
    row : dict
    options : argparse.Namespace
        See :func:`compare`; ``choose`` names the option that was chosen.
    speaker_columns : bool
        Whether each speaker's figure has a column.
    """
    task, metric = options.task, options.task.metrics[options.metric]
    spread = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
    line = {"test set": row["test set"], "system": row["system"]}
    line |= {options.choose: row["value"]} if options.choose else {}
    line |= {"parameters": f"{row['parameters']:,}", "fidelity": row["fidelity"]}
    line |= {"runs": row["runs"], task.items: row["items"]}
    line[metric.label] = f"{row['mean']:.2f}{spread}"
    drawn = task.items if row["drawn"] == "items" else "speakers"
    line["95 % interval"] = f"{row['low']:.2f} to {row['high']:.2f}, other {drawn}"
    for name, found in row["others"].items():
        if task.metrics[name].shown:
            line[task.metrics[name].label] = "{estimate:.2f} ({low:.2f} to {high:.2f})".format(
                **found
            )
    line |= {name: f"{value:.2f}" for name, value in row["extras"].items()}
    shares = row["speakers"].values()
    if speaker_columns:
        line |= {who: f"{share:.1f}" for who, share in row["speakers"].items()}
    elif row["drawn"] == "items" and len(shares) > 1:
        line["of each speaker"] = f"{min(shares):.1f} to {max(shares):.1f}"
    known = [value for value in row["validation"] if value is not None]
    default = next(iter(task.metrics.values()))
    line[f"validation {default.label}"] = f"{statistics.fmean(known):.2f}" if known else ""
    line["training, min"] = f"{statistics.fmean(row['train_seconds']) / 60:.1f}"
    return line | {"steps": round(statistics.fmean(row["optimizer_steps"]))}


def difference_line(row, options):
    """A row's difference as a line of the table."""
    metric, found = options.task.metrics[options.metric], row["difference"]
    drawn = options.task.items if found["drawn"] == "items" else "speakers"
    line = {"test set": row["test set"], "system": row["system"], "against": found["against"]}
    line[f"difference, {metric.unit}"] = f"{found['estimate']:+.2f}"
    line["95 % interval"] = f"{found['low']:+.2f} to {found['high']:+.2f}, other {drawn}"
    line["p"] = f"{found['p']:.4f}"
    gains = found["speakers"].values()
    better = sum(gain > 0 if metric.higher else gain < 0 for gain in gains)
    return line | ({"better for": f"{better} of {len(gains)} speakers"} if gains else {})


def tried_line(run, option):
    """A run among which :func:`training.scores.best_of` chose, as a line of a table."""
    return {
        "system": run["system"],
        option: run["value"],
        "seed": run["seed"],
        "training, min": f"{run['train_seconds'] / 60:.1f}",
        "epochs": run["epochs"],
        "best validation": f"{run['validation']:.2f}",
    }


if __name__ == "__main__":
    # being ended is told as Ctrl-C is, so that nothing goes on running
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
