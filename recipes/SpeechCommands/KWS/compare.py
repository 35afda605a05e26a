#!/usr/bin/env python3
"""Train and test keyword spotters with several seeds, on several left-out speakers, and put the scores into one table.

    python compare.py hparams/mamba_mel_small.yaml hparams/retnet.yaml --seeds 1 2 3 --jobs 2 \\
        --out results/compare --data_folder speech_commands_v0.02
    python compare.py hparams/mini.yaml hparams/retnet.yaml --test_speakers all --seeds 1 --budget_seconds 120 \\
        --out results/digits --data_folder free-spoken-digit-dataset --n_classes 10 --background_probability 0

What compare.py does not know is passed on to train.py. The same command again goes on where it was stopped. Every
recipe is compared with the first one clip by clip, or with that of --against.
"""

import argparse
import math
import shlex
import signal
import sys
from pathlib import Path

from runs import Run, run_all
from scores import difference, difference_line, read_runs, same_clips, score, table_line

from data_prep.free_spoken_digits_prepare import list_recordings
from mamba_speech.evaluation.tables import as_markdown, as_text
from mamba_speech.files import write_json

RESERVED = {"seed": "--seeds", "output_folder": "--out", "test_speaker": "--test_speakers"}
BUDGET = ("number_of_epochs", "optimizer_step_limit", "total_steps")


def main(arguments=None):
    """Run everything, write and print the tables; returns the exit status."""
    options, passed_on = read_arguments(arguments)
    command = shlex.join(
        ["python", "compare.py", *(sys.argv[1:] if arguments is None else arguments)]
    )
    try:
        limits, failed = {}, []
        if options.budget_seconds:
            rates = [rate_run(yaml, options, passed_on) for yaml in options.yamls]
            failed = run_all(rates, options.jobs)
            limits = {
                run.recipe: budget(run, options.budget_seconds)
                for run in rates
                if run not in failed
            }
        measured = [
            yaml
            for yaml in options.yamls
            if not options.budget_seconds or Path(yaml).stem in limits
        ]
        runs = {
            Path(yaml).stem: training_runs(yaml, options, passed_on, limits) for yaml in measured
        }
        failed += run_all([run for own in runs.values() for run in own], options.jobs)
        for run in failed:
            print(f"{run.name} failed; see {run.log}", file=sys.stderr)
        # fewer speakers or seeds than the others have would make another figure
        whole = {name: own for name, own in runs.items() if not set(own) & set(failed)}
        if not whole:
            print("no recipe has all its runs, so there is no table", file=sys.stderr)
            return 1
        write_tables(whole, options, command)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command again goes on", file=sys.stderr)
        return 130
    return 1 if failed else 0


def read_arguments(arguments):
    """The options, and those that are train.py's."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        # a prefix is not an abbreviation: --seed is an option of train.py
        allow_abbrev=False,
        epilog="Other options are those of train.py: --data_folder, --number_of_epochs, ...",
    )
    parser.add_argument("yamls", metavar="YAML", nargs="+", help="files such as hparams/mini.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--test_speakers",
        nargs="+",
        metavar="SPEAKER",
        help="of Free Spoken Digits, to be left out one at a time; all: everyone in --data_folder",
    )
    parser.add_argument("--against", metavar="RECIPE", help="what the others are compared with")
    parser.add_argument(
        "--budget_seconds",
        type=float,
        help="so many seconds of training for each run, as a number of steps by the recipe's measured rate",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, a thread each")
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="output folder")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    options, passed_on = parser.parse_known_args(arguments)
    given = [part[2:].partition("=")[0] for part in passed_on if part.startswith("--")]
    for name in given:
        if name in RESERVED:
            parser.error(f"--{name} is set by {', '.join(sorted(set(RESERVED.values())))}")
        if options.budget_seconds is not None and name in BUDGET:
            parser.error(f"--{name} is set by --budget_seconds")
    # what follows an option of train.py is its value, and no YAML
    wrong = [one for one in options.yamls if not Path(one).is_file()]
    if wrong:
        parser.error(f"no such YAML file: {', '.join(wrong)}; name the YAML files first")
    recipes = [Path(yaml).stem for yaml in options.yamls]
    for name in recipes:
        if recipes.count(name) > 1:
            parser.error(f"two YAML files are named {name}: rename one")
    if options.against is None:
        options.against = recipes[0]
    options.against = Path(options.against).stem
    if options.against not in recipes:
        parser.error(f"--against {options.against} is not among the recipes: {', '.join(recipes)}")
    for name, least in (("jobs", 1), ("resamples", 100)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be {least} or more")
    if options.budget_seconds is not None and not 0 < options.budget_seconds < math.inf:
        parser.error("--budget_seconds must be above 0")
    for name in ("seeds", "test_speakers"):
        chosen = getattr(options, name) or []
        if len(set(chosen)) < len(chosen):
            parser.error(f"--{name} names one twice")
    if options.test_speakers:
        try:
            options.test_speakers = choose_speakers(options.test_speakers, passed_on)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    return options, passed_on


def choose_speakers(wanted, passed_on):
    """The speakers to leave out, if the data folder has them; ``all`` stands for everyone there.

    Raises
    ------
    OSError or ValueError
        If there is no such folder, or no such speaker in it.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--data_folder")
    folder = parser.parse_known_args(passed_on)[0].data_folder
    if not folder:
        raise ValueError("--test_speakers needs --data_folder, Free Spoken Digits")
    known = sorted({one.speaker for one in list_recordings(folder)[0]})
    unknown = [name for name in wanted if name not in known and name != "all"]
    if unknown:
        raise ValueError(
            f"--test_speakers: {', '.join(unknown)} not in {folder}; choose of {', '.join(known)}, or all"
        )
    return known if "all" in wanted else wanted


def training_runs(yaml, options, passed_on, limits):
    """The runs of a recipe: one a left-out speaker and seed."""
    recipe, runs = Path(yaml).stem, []
    for speaker in options.test_speakers or [None]:
        for seed in options.seeds:
            folder = options.out / recipe / (speaker or "") / str(seed)
            own = ["--seed", str(seed), *(("--test_speaker", speaker) if speaker else ())]
            own += [*limits.get(recipe, ()), *quiet(passed_on)]
            runs.append(Run("train.py", recipe, yaml, folder, tuple(own), speaker, seed))
    return runs


def rate_run(yaml, options, passed_on):
    """The measurement of a recipe's rate, on the data of its first run."""
    first = training_runs(yaml, options, passed_on, {})[0]
    folder = options.out / first.recipe / "rate"
    return Run("rate.py", first.recipe, yaml, folder, first.options)


def quiet(passed_on):
    """The options without a bar of progress, which is no use in a file."""
    return passed_on if "--noprogressbar" in passed_on else [*passed_on, "--noprogressbar"]


def budget(run, seconds):
    """Options that let a recipe train for so many seconds, given its measured rate.

    The number of steps is set, not the time: a run can be stopped, continued and repeated, and the learning rate's
    schedule ends with the last step.
    """
    rate = run.read()
    steps = max(1, round(seconds / rate["seconds_a_step"]))
    epochs = math.ceil(steps / rate["steps_an_epoch"])
    return ("--optimizer_step_limit", str(steps), "--number_of_epochs", str(epochs))


def write_tables(runs, options, command):
    """Score the recipes, compare them clip by clip, and write and print the tables.

    Arguments
    ---------
    runs : dict of str: list of Run
        By recipe, all of them finished.
    options : argparse.Namespace
    command : str
        For the record.
    """
    tests, rows = {}, []
    for recipe, own in runs.items():
        by_seed, results = read_runs(own)
        tests[recipe] = by_seed
        row = {"recipe": recipe, "parameters": results[0]["parameters"], "runs": len(own)}
        row |= {"fidelity": results[0]["fidelity"], "device": results[0]["device"]}
        row |= {"seeds": options.seeds} | score(by_seed, options.resamples)
        for figure in ("train_seconds", "optimizer_steps"):
            row[figure] = [result[figure] for result in results]
        rows.append(row)
    same_clips({name: test[options.seeds[0]] for name, test in tests.items()}, "recipes")
    table = [table_line(row, bool(options.test_speakers)) for row in rows]
    differences = {}
    if options.against in tests:
        against = tests[options.against]
        differences = {
            name: difference(against, test, options.resamples)
            for name, test in tests.items()
            if name != options.against
        }
    else:
        print(f"{options.against} has not all its runs: no differences to it", file=sys.stderr)
    pairs = [difference_line(name, options.against, found) for name, found in differences.items()]
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"command": command, "against": options.against, "rows": rows}
    write_json(options.out / "compare.json", record | {"differences": differences})
    parts = [one for one in (table, pairs) if one]
    text = "\n\n".join([f"`{command}`", *(as_markdown(part) for part in parts)]) + "\n"
    partial = options.out / "compare.md.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(options.out / "compare.md")
    print("\n\n".join(as_text(part) for part in parts))


if __name__ == "__main__":
    # being ended is told as Ctrl-C is, so that nothing goes on running
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
