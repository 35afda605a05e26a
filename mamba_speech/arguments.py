"""Arguments that several commands of `mamba-speech` take, and the types of their values."""

import argparse
import math


def add_run_folder(parser, text="output folder of a training run"):
    """Add the positional argument that every command begins with."""
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help=text)


def add_inputs(parser, text="audio file, or folder to search for audio"):
    """Add one or more positional arguments that name recordings."""
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help=text)


def add_device(parser):
    """Add `--device`."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; default: cuda, else cpu")


def add_json(parser):
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="JSON objects, one a line")


def add_number(parser, name, kind, default, text):
    """Add an option that is a number and show its default in the help."""
    parser.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)g)")


def positive_number(text):
    """A number over 0.

    Example
    -------
    >>> positive_number("0.5")
    0.5
    """
    return _number(text, lambda value: 0 < value < math.inf, "more than 0")


def not_negative(text):
    """A number of 0 or more.

    Example
    -------
    >>> not_negative("0")
    0.0
    """
    return _number(text, lambda value: 0 <= value < math.inf, "0 or more")


def share(text):
    """A number from 0 to 1.

    Example
    -------
    >>> share("0.7")
    0.7
    """
    return _number(text, lambda value: 0 <= value <= 1, "from 0 to 1")


def _number(text, fits, wanted):
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, not {text}") from error
    if not fits(value):
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
    return value
