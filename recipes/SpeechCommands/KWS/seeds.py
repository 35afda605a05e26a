#!/usr/bin/env python3
"""Train and test one keyword spotter with several seeds, and put the test scores into one table.

    python seeds.py hparams/mamba_mel_small.yaml --seeds 1 2 3 --out results/seeds --data_folder speech_commands_v0.02

What seeds.py does not know is passed on to train.py. The same command again goes on where it was stopped;
several YAML files give one table of them all.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from training.tables import as_text, write_json

HERE = Path(__file__).resolve().parent
COLUMNS = ("accuracy", "macro_F1")


def main(arguments=None):
    """Run every seed of every YAML; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        # a prefix is not an abbreviation: --seed is an option of train.py
        allow_abbrev=False,
        epilog="Other options are those of train.py: --data_folder, --number_of_epochs, ...",
    )
    parser.add_argument("yamls", metavar="YAML", nargs="+", help="files such as hparams/mini.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("results/seeds"), help="output folder")
    options, passed_on = parser.parse_known_args(arguments)
    # what follows an option of train.py is its value, and no YAML
    wrong = [one for one in options.yamls if not Path(one).is_file()]
    if wrong:
        parser.error(f"no such YAML file: {', '.join(wrong)}; name the YAML files first")
    for reserved in ("--seed", "--output_folder"):
        if any(one.split("=")[0] == reserved for one in passed_on):
            parser.error(f"{reserved} is set by --seeds and --out")
    rows = []
    for yaml in options.yamls:
        for seed in options.seeds:
            folder = options.out / Path(yaml).stem / str(seed)
            command = [sys.executable, str(HERE / "train.py"), yaml, "--seed", str(seed)]
            command += ["--output_folder", str(folder), *passed_on]
            print("$", " ".join(command), flush=True)
            if subprocess.run(command, check=False).returncode:
                print(f"{folder}: train.py failed; run this command again", file=sys.stderr)
                return 1
            result = json.loads((folder / "results.json").read_text(encoding="utf-8"))["test"]
            rows.append({"recipe": Path(yaml).stem} | result)
    table = summarise(rows)
    write_json(options.out / "seeds.json", rows)
    write_json(options.out / "seeds_table.json", table)
    print(as_text(table))
    return 0


def summarise(rows):
    """One row a recipe: its parameters, clips, and each score as mean and standard deviation over seeds.

    Arguments
    ---------
    rows : list of dict
        Test results with ``recipe``, ``seed``, ``parameters``, ``clips``, ``accuracy_low``,
        ``accuracy_high`` and the scores in :data:`COLUMNS`.

    Returns
    -------
    list of dict
    """
    table = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe]
        line = {"recipe": recipe, "parameters": own[0]["parameters"]}
        line |= {"seeds": len(own), "test clips": int(own[0]["clips"])}
        for column in COLUMNS:
            values = [row[column] for row in own]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            line[f"{column} %"] = f"{statistics.mean(values):.2f}{spread}"
        # of the single runs: the clips are the same for every seed, so that runs can not be pooled
        line["95 % intervals"] = "; ".join(
            f"{row['accuracy_low']:.1f} to {row['accuracy_high']:.1f}" for row in own
        )
        table.append(line)
    return table


if __name__ == "__main__":
    sys.exit(main())
