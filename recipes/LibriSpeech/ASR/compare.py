#!/usr/bin/env python3
"""Train and test several recipes with several seeds each, and say which word error rates differ from the first's.

    python compare.py upstream=hparams/S2S/conmamba_mini.yaml,fidelity=upstream \\
        corrected=hparams/S2S/conmamba_mini.yaml plus=hparams/S2S/conmamba_mini_plus.yaml \\
        --seeds 1 2 3 --out results/compare --data_folder spoken --test_splits '[dev-spoken, test-spoken]'

A system is a name, a YAML file and options of its own. What compare.py does not know is passed on to the training
script, train_CTC.py or train_S2S.py by the YAML's folder. The same command again goes on where it was stopped.
Settings are to be chosen on a dev set, which is why it stands among the test sets above.
"""

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from mamba_speech.evaluation.bootstrap import paired_bootstrap
from mamba_speech.evaluation.tables import as_text
from mamba_speech.evaluation.wer import read_errors
from mamba_speech.files import write_json
from training.results import read_rows

HERE = Path(__file__).resolve().parent
RESERVED = ("seed", "output_folder")
# of a run's record
COLUMNS = ("WER", "parameters", "fidelity", "train_seconds")


class System(NamedTuple):
    """A name, the script and the YAML file that train it, and its own options."""

    name: str
    script: Path
    yaml: str
    options: dict

    @classmethod
    def parse(cls, text):
        """Read ``name=file.yaml,option=value,...``; commas within a value's brackets are the value's.

        Raises
        ------
        argparse.ArgumentTypeError
            If it is not written so, or there is no such file or no script for it.
        """
        name, _, rest = text.partition("=")
        yaml, *pairs = re.split(r",(?=\w+=)", rest)
        if not re.fullmatch(r"[\w.-]+", name) or not yaml:
            raise argparse.ArgumentTypeError(
                f"{text}: write name=file.yaml or name=file.yaml,option=value, systems before other options"
            )
        if not Path(yaml).is_file():
            raise argparse.ArgumentTypeError(f"{name}: {yaml}: no such YAML file")
        script = HERE / f"train_{Path(yaml).resolve().parent.name}.py"
        if not script.is_file():
            raise argparse.ArgumentTypeError(
                f"{name}: {yaml} must stand in a folder named after its script, CTC or S2S"
            )
        options = dict(pair.split("=", 1) for pair in pairs)
        for reserved in RESERVED:
            if reserved in options:
                raise argparse.ArgumentTypeError(f"{name}: {reserved} is set by --seeds and --out")
        return cls(name, script, yaml, options)


def main(arguments=None):
    """Run every seed of every system, and compare them; returns the exit status."""
    options, passed_on = read_arguments(arguments)
    # seed by seed, so that a comparison that is cut short has as many of each
    for seed in options.seeds:
        for system in options.systems:
            folder = options.out / system.name / str(seed)
            command = [sys.executable, str(system.script), system.yaml, "--seed", str(seed)]
            command += ["--output_folder", str(folder), *passed_on]
            command += [
                part for key, value in system.options.items() for part in (f"--{key}", value)
            ]
            try:
                failed = run(command, folder)
            except ValueError as error:
                print(error, file=sys.stderr)
                return 2
            if failed:
                print(
                    f"{folder}: {system.script.name} failed; run this command again",
                    file=sys.stderr,
                )
                return 1
    runs = {
        system.name: {seed: options.out / system.name / str(seed) for seed in options.seeds}
        for system in options.systems
    }
    group = (lambda utterance: utterance.split("-")[0]) if options.draw == "speakers" else None
    try:
        rows = compare(runs, options.resamples, group)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    command = shlex.join(
        ["python", "compare.py", *(sys.argv[1:] if arguments is None else arguments)]
    )
    write_json(
        options.out / "compare.json", {"command": command, "draw": options.draw, "rows": rows}
    )
    print(as_text([table_line(row) for row in rows]))
    return 0


def read_arguments(arguments):
    """The options, and those that are the training script's."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        # a prefix is not an abbreviation: --seed is an option of the training script
        allow_abbrev=False,
        epilog="Other options are those of the training script: --data_folder, --number_of_epochs, ...",
    )
    parser.add_argument(
        "systems",
        metavar="SYSTEM",
        nargs="+",
        type=System.parse,
        help="name=file.yaml, or name=file.yaml,option=value,...",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="output folder")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument(
        "--draw",
        choices=("utterances", "speakers"),
        default="utterances",
        help="what the bootstrap draws; a speaker is what stands before an id's first hyphen",
    )
    options, passed_on = parser.parse_known_args(arguments)
    names = [system.name for system in options.systems]
    for repeated in {name for name in names if names.count(name) > 1}:
        parser.error(f"{repeated} names two systems")
    for reserved in RESERVED:
        if any(one.split("=")[0] == f"--{reserved}" for one in passed_on):
            parser.error(f"--{reserved} is set by --seeds and --out")
    return options, passed_on


def run(command, folder):
    """Run a training script, unless it has finished before; returns its exit status.

    Raises
    ------
    ValueError
        If the folder holds the run of another command.
    """
    record = folder / "compare.json"
    # where python stands does not matter
    known = {"command": command[2:], "finished": False}
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        if found["command"] != known["command"]:
            raise ValueError(
                f"{folder}: holds a run with other options ({shlex.join(found['command'])}); "
                "give the options that it was started with, or another --out"
            )
        if found["finished"]:
            print(f"{folder}: finished before", flush=True)
            return 0
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, known)
    print("$", shlex.join(command), flush=True)
    began = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        write_json(record, known | {"finished": True})
        print(f"{folder}: {time.monotonic() - began:.0f} s", flush=True)
    return status


def compare(runs, resamples=10_000, group=None):
    """One row a test set and system, the first system being what the others are compared with.

    Arguments
    ---------
    runs : dict of str: dict of int: Path
        Output folders of the training script, by system and seed.
    resamples, group
        See :func:`mamba_speech.evaluation.bootstrap.paired_bootstrap`.

    Returns
    -------
    list of dict
        Word error rates in %, of all seeds in order; their mean and standard deviation; the difference to the first
        system in points, with its 95 % interval and p.

    Raises
    ------
    OSError or ValueError
        If a run lacks a file, or was not tested on the same sets.
    """
    results = {
        system: {seed: read_rows(folder, COLUMNS) for seed, folder in folders.items()}
        for system, folders in runs.items()
    }
    sets = [set(result) for of_system in results.values() for result in of_system.values()]
    if not set.intersection(*sets):
        raise ValueError("the runs have no test set in common")
    first = next(iter(runs))
    rows = []
    for test_set in next(iter(results[first].values())):
        if not all(test_set in one for one in sets):
            continue
        errors = {
            system: [read_errors(folder / f"errors_{test_set}.csv") for folder in folders.values()]
            for system, folders in runs.items()
        }
        for system, of_system in results.items():
            own = [result[test_set] for result in of_system.values()]
            rates = [result["WER"] for result in own]
            row = {"test set": test_set, "system": system, "parameters": own[0]["parameters"]}
            row |= {"fidelity": own[0]["fidelity"], "seeds": list(of_system), "WER": rates}
            row |= {"mean": statistics.mean(rates)}
            row |= {"deviation": statistics.stdev(rates) if len(rates) > 1 else None}
            row |= {"train_seconds": [result["train_seconds"] for result in own]}
            if system != first:
                row |= paired_bootstrap(
                    errors[first], errors[system], resamples, group=group
                )._asdict()
            rows.append(row)
    return rows


def table_line(row):
    """A row of :func:`compare` as a line of the printed table."""
    spread = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
    line = {"test set": row["test set"], "system": row["system"]}
    line |= {"parameters": f"{row['parameters']:,}", "seeds": len(row["seeds"])}
    line |= {"WER %": f"{row['mean']:.2f}{spread}"}
    line |= {"train s": f"{statistics.mean(row['train_seconds']):.0f}"}
    if "difference" in row:
        line["difference"] = f"{row['difference']:+.2f}"
        line["95 % interval"] = f"{row['low']:+.2f} to {row['high']:+.2f}"
        line["p"] = f"{row['p']:.4f}"
    else:
        line |= dict.fromkeys(("difference", "95 % interval", "p"), "")
    return line


if __name__ == "__main__":
    sys.exit(main())
