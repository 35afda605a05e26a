#!/usr/bin/env python3
"""The published name of train.py, with the published paths of the YAML files.

    python train_wsj0mix.py hparams/WSJ0Mix/mambatasnet_XS.yaml --data_folder wsj0-mix/2speakers

Source: the commands in the README of xi-j/Mamba-TasNet.
"""

import sys
from pathlib import Path

import train

# options of the published YAML files that have another name here
RENAMED = {"eval_only": "skip_train"}


def translate(arguments):
    """The command line of train.py that means the same, and what was changed in it.

    Arguments
    ---------
    arguments : list of str
        Without the script's name.

    Returns
    -------
    (list of str, list of str)

    Example
    -------
    >>> translate(["hparams/WSJ0Mix/mambatasnet_XS.yaml", "--eval_only=True"])[1]
    ['hparams/WSJ0Mix/mambatasnet_XS.yaml is hparams/mambatasnet_XS.yaml', '--eval_only is --skip_train']
    """
    translated, changes = list(arguments), []
    for index, argument in enumerate(arguments):
        name, *value = argument.removeprefix("--").split("=", 1)
        if argument.startswith("--") and name in RENAMED:
            translated[index] = "=".join([f"--{RENAMED[name]}", *value])
            changes.append(f"--{name} is --{RENAMED[name]}")
    if arguments and not Path(arguments[0]).is_file():
        here = Path("hparams", Path(arguments[0]).name)
        folder = Path(__file__).parent
        if (folder / here).is_file():
            translated[0] = str(folder / here)
            changes.insert(0, f"{arguments[0]} is {here}")
    return translated, changes


def main():
    """Say the new names once, then train."""
    sys.argv[1:], changes = translate(sys.argv[1:])
    print("; ".join(["train_wsj0mix.py is train.py", *changes]), file=sys.stderr)
    train.main()


if __name__ == "__main__":
    main()
