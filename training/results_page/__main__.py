"""Command line of the results: it lists, repeats and adds rows, and writes RESULTS.md."""

import argparse
import os
import signal
import sys

from mamba_speech.arguments import given_path, number
from mamba_speech.audio.names import safe_streams
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import write_text
from training.results_page.entries import ROOT, read_entries
from training.results_page.page import figure_of, make_page, minutes_of, rewrite
from training.results_page.repeat import repeat

PAGE = ROOT / "RESULTS.md"


def make_parser():
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m training.results_page", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="name the rows that can be repeated, with their time")
    one = commands.add_parser(
        "repeat", help="make a row's data, train, test, and compare with its interval"
    )
    one.add_argument("names", metavar="NAME", nargs="*", help="rows; none: list them")
    one = commands.add_parser("write", help="write RESULTS.md, and the blocks of other documents")
    one.add_argument(
        "--check", action="store_true", help="change nothing; fail if one is out of date"
    )
    add_options(commands.add_parser("add", help="write a row from finished runs"))
    return parser


def add_options(parser):
    """The options of ``add``."""
    add = parser.add_argument
    add("name", metavar="NAME", help="name of the row")
    add("runs", metavar="RUN", nargs="+", type=given_path, help="output folder of a tested run")
    add("--section", required=True, help="section of RESULTS.md, such as keywords")
    add("--model", required=True, help="model, in words")
    add("--trained_on", required=True, help="training data, in words")
    add("--tested_on", required=True, help="test data, in words")
    add("--test", help="test set, the first by default")
    add("--metric", help="figure of results.json, by default WER, accuracy, EER or si-snr_i")
    add("--draw", choices=("item", "speaker"), help="unit of the interval, as in training.compare")
    add("--speakers", type=given_path, help="CSV of the speakers, as in training.compare")
    add("--data", metavar="COMMAND", action="append", default=[], help="command that makes data")
    add("--train", metavar="COMMAND", action="append", help="training, if the record's will not do")
    add("--test_command", metavar="COMMAND", action="append", default=[], help="further test")
    add(
        "--replace",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="part of a path to replace",
    )
    add("--needs", metavar="FOLDER", action="append", default=[], help="folder that must be there")
    add(
        "--minutes",
        type=number(0, 100_000, above=True),
        help="time of a repeat; none: not repeated",
    )
    add("--note", help="sentence for the page")


def main(arguments=None):
    """Run a command; returns the exit status."""
    safe_streams()
    options = make_parser().parse_args(arguments)
    try:
        if options.command == "add":
            # here, since records and metrics take a moment to import
            from training.results_page.add import add

            print(f"wrote {add(options)}; now python -m training.results_page write")
            return 0
        entries = read_entries()
        if options.command == "write":
            return write(entries, options.check)
        if options.command == "list" or not options.names:
            print_list(entries)
            return 0
        for name in options.names:
            if name not in entries:
                known = ", ".join(one.name for one in repeatable(entries))
                raise ValueError(f"{name}: there is no such row. Rows: {known}")
        return max(repeat(entries[name]) for name in options.names)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def repeatable(entries):
    """The rows that a command repeats, the quickest first."""
    own = [entry for entry in entries.values() if entry.minutes is not None]
    return sorted(own, key=lambda entry: (entry.minutes, entry.name))


def print_list(entries):
    """Print the rows that a command repeats."""
    rows = [
        {
            "NAME": entry.name,
            "time": minutes_of(entry.minutes),
            "figure": f"{entry.metric} {figure_of(entry)}",
            "needs": _needs(entry),
            "model": entry.model,
        }
        for entry in repeatable(entries)
    ]
    print(as_text(rows))
    print(
        "\nmake results NAME repeats a row, and says whether its figure falls into the interval. The times hold for 2 "
        "idle cores."
    )


def _needs(entry):
    if len(entry.needs) > 1:
        return f"{entry.needs[0].partition('/')[0]}, {len(entry.needs)} folders"
    return entry.needs[0] if entry.needs else "-"


def write(entries, check=False):
    """Write RESULTS.md and the blocks of the READMEs; with ``check`` name what would change, and return 1."""
    texts = {PAGE: make_page(entries)}
    for document in [ROOT / "README.md", *sorted((ROOT / "recipes").glob("*/*/README.md"))]:
        texts[document] = rewrite(document.read_text(encoding="utf-8"), entries)
    stale = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if check:
        for path in stale:
            print(
                f"{os.path.relpath(path)} is out of date: run python -m training.results_page write"
            )
        return 1 if stale else 0
    for path in stale:
        write_text(path, texts[path])
    return 0


def _interrupt(number, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    # being ended, or a terminal that closes, is told as Ctrl-C is, so that nothing goes on running
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    sys.exit(main())
