"""Arguments that several commands and scripts take, and the types of their values.

Every number has a range, and every path a text: what is wrong is said at once, in one sentence.
"""

import argparse
import math

# most processes, most hypotheses of a beam, longest time in seconds (a day)
MOST_JOBS, MOST_HYPOTHESES, LONGEST_TIME = 1024, 10_000, 86_400.0
MOST_FRAMES, MOST_WEIGHT = 65_536, 1000.0
STANDARD_INPUT = "-"


def add_run_folder(parser, text="output folder of a training run"):
    """Add the positional argument that every command begins with."""
    parser.add_argument("run_folder", metavar="RUN_FOLDER", type=given_path, help=text)


def add_inputs(
    parser,
    text="audio file, folder to search for audio, list of recordings, or quoted pattern such as '*.flac'",
    nargs="+",
    metavar="INPUT",
):
    """Add positional arguments that name recordings, and `--raw` of standard input, which is one of them."""
    parser.add_argument(
        "inputs",
        metavar=metavar,
        type=given_path,
        nargs=nargs,
        help=f"{text}; {STANDARD_INPUT} is a recording on standard input",
    )
    parser.add_argument(
        "--raw",
        type=rate,
        metavar="RATE",
        help="rate of raw 16-bit little-endian samples in one channel on standard input; default: it is an audio file",
    )
    parser.set_defaults(takes_many=True)


def add_device(parser):
    """Add `--device`."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; default: cuda, else cpu")


def add_json(parser):
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="JSON objects, one a line")


def add_number(parser, name, kind, default, text):
    """Add an option that is a number and show its default in the help."""
    parser.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)g)")


def given_path(text):
    """A path: any text but an empty one, or one that no file system takes.

    Example
    -------
    >>> given_path("speech/a.wav")
    'speech/a.wav'
    """
    if not text:
        raise argparse.ArgumentTypeError("must be a path, and is empty")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path, without a null character; got {text!r}")
    return text


def given_name(text):
    """A text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def number(least, most, above=False):
    """The type of a number within a range.

    Arguments
    ---------
    least, most : float
        Ends of the range; both belong to it.
    above : bool
        Whether the least is out of the range.

    Returns
    -------
    callable
        From a text to a float; raises argparse.ArgumentTypeError.

    Example
    -------
    >>> number(0, 1)("0.7")
    0.7
    >>> number(0, 1, above=True)("0")
    Traceback (most recent call last):
        ...
    argparse.ArgumentTypeError: must be more than 0 and at most 1; got 0
    """
    low = f"more than {least:,g} and at most" if above else f"from {least:,g} to"

    def read(text):
        value = _read(float, text, "a number")
        # a NaN is in no range
        if not (least < value <= most if above else least <= value <= most):
            raise argparse.ArgumentTypeError(f"must be {low} {most:,g}; got {_shown(text)}")
        return value

    return read


def whole_number(least, most):
    """The type of a whole number within a range, as :func:`number`.

    Example
    -------
    >>> whole_number(1, 8)("2")
    2
    >>> whole_number(1, 8)("2.5")
    Traceback (most recent call last):
        ...
    argparse.ArgumentTypeError: must be a whole number; got 2.5
    """

    def read(text):
        # what has so many digits is out of every range, and int() refuses thousands of them
        digits = text.strip().lstrip("+-")
        value = (
            math.inf
            if digits.isdecimal() and len(digits) > 18
            else _read(int, text, "a whole number")
        )
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least:,} to {most:,}; got {_shown(text)}"
            )
        return value

    return read


def _read(kind, text, wanted):
    try:
        # Python takes 1_000 for a number, which nobody types
        return kind(text if "_" not in text else "")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {wanted}; got {_shown(text)}") from error


def _shown(text):
    text = text if text.isprintable() else ascii(text)
    return text if 0 < len(text) <= 40 else f"{text[:40]}..." if text else "nothing"


# the types that several commands share
share = number(0, 1)
score = number(-1, 1)
seconds = number(0, LONGEST_TIME)
some_seconds = number(0, LONGEST_TIME, above=True)
jobs = whole_number(1, MOST_JOBS)
seed = whole_number(0, 2**32 - 1)
rate = whole_number(1000, 768_000)
