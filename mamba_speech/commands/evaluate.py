"""The command `mamba-speech evaluate`: figures of a run on a list with references, with intervals."""

import os
import sys
import time

from tqdm import tqdm

from mamba_speech.arguments import (
    add_device,
    add_json,
    add_number,
    add_run_folder,
    given_path,
    some_seconds,
)
from mamba_speech.asr.recognizer import BATCH_SECONDS
from mamba_speech.asr.transcribe_options import SEARCH_OPTIONS, add_search
from mamba_speech.audio.names import plain
from mamba_speech.commands.evaluate_keywords import evaluate_keywords
from mamba_speech.commands.evaluate_recognition import evaluate_recognition, text_policy
from mamba_speech.commands.evaluate_separation import evaluate_separation
from mamba_speech.commands.evaluate_speaker import evaluate_speaker
from mamba_speech.commands.models import known_task, load_model
from mamba_speech.files import write_csv
from mamba_speech.printing import json_line
from mamba_speech.text import CHOICES

_TEXT = ("text_case", "text_punctuation")
# option: tasks that it is for
_OF_TASK = dict.fromkeys((*SEARCH_OPTIONS, *_TEXT), ("recognition", "streaming"))
_OF_TASK["data_folder"] = ("speaker",)


def add_arguments(parser):
    """Give the parser of `mamba-speech evaluate` its arguments."""
    add_run_folder(parser)
    parser.add_argument(
        "list",
        metavar="LIST",
        type=given_path,
        help="recognition: list of recordings with texts; keywords: list with labels, or folder of <word>/<clip>; "
        "separation: CSV with mix_wav, s1_wav, ..., or folder with mix, s1, ...; speaker: trials, `label path path`",
    )
    parser.add_argument(
        "--output_file",
        type=given_path,
        metavar="FILE",
        help="CSV file with a row an item: reference, result and score",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replacement of an output file that is there"
    )
    parser.add_argument(
        "--data_folder",
        type=given_path,
        metavar="FOLDER",
        help="folder of the recordings of a list of trials; default: the list's own",
    )
    for name in _TEXT:
        kind = name.removeprefix("text_")
        parser.add_argument(
            f"--{name}",
            choices=CHOICES[kind],
            help=f"{kind} of references and results; default: the run's {name}",
        )
    add_search(parser)
    text = "seconds of audio in a batch of recognition"
    add_number(parser, "--batch_seconds", some_seconds, BATCH_SECONDS, text)
    add_device(parser)
    add_json(parser)
    parser.epilog = (
        "Prints a figure a line with its 95 % interval: WER and CER, accuracy and macro F1, gains of SI-SNR and SDR, "
        "or EER and minDCF. Intervals draw speakers where the list names enough, else items. Items that fail are "
        "counted and listed on stderr; then the exit status is 1, and the figures are of the others."
    )


def run_command(arguments):
    """Run `mamba-speech evaluate`; returns the exit status, 0 if every item was tested."""
    task = known_task(arguments.run_folder)
    _check_options(arguments, task)
    _check_output(arguments)
    began = time.monotonic()
    report = _evaluate(arguments, task)
    if arguments.output_file is not None:
        write_csv(arguments.output_file, list(report.rows[0]), report.rows)
    found = {
        "run": arguments.run_folder,
        "task": task,
        "list": arguments.list,
        report.items: len(report.rows),
        "failed": len(report.errors),
        "figures": {name: one._asdict() for name, one in report.figures.items()},
        **report.notes,
        "seconds": round(time.monotonic() - began, 2),
    }
    if arguments.json:
        print(json_line(found | {"errors": report.errors}))
    else:
        _print_figures(report)
    if report.errors:
        count = "1 item was" if len(report.errors) == 1 else f"{len(report.errors)} items were"
        lines = (plain(error, backslashes=False) for error in report.errors)
        print(f"mamba-speech: {count} not tested:", *lines, sep="\n  ", file=sys.stderr)
    return 1 if report.errors else 0


def _check_options(arguments, task):
    """Refuse options of another task."""
    for name, tasks in _OF_TASK.items():
        if task not in tasks and getattr(arguments, name) not in (None, False):
            raise ValueError(f"--{name} is for runs of {tasks[0]}, and this is a run of {task}")


def _check_output(arguments):
    """Refuse to replace a file unasked, before the work."""
    path = arguments.output_file
    if path is None and arguments.overwrite:
        raise ValueError("--overwrite is for a file: give --output_file too")
    if path is not None and os.path.lexists(path) and not arguments.overwrite:
        raise ValueError(
            f"--output_file {path} is there already: give --overwrite to replace it, or another file"
        )


def _evaluate(arguments, task):
    search = {name: getattr(arguments, name) for name in SEARCH_OPTIONS}
    options = search if task in _OF_TASK["decoding"] else {}
    model = load_model(arguments.run_folder, task, arguments.device, **options)
    place = arguments.list
    if task == "separation":
        return evaluate_separation(model, place, _progress)
    if task == "keywords":
        return evaluate_keywords(model, place, _progress)
    if task == "speaker":
        return evaluate_speaker(model, place, arguments.data_folder, _progress)
    policy = text_policy(arguments.run_folder, {name: getattr(arguments, name) for name in _TEXT})
    return evaluate_recognition(
        model, place, policy, _progress, batch_seconds=arguments.batch_seconds
    )


def _progress(results, total):
    """The results, with a bar where stderr is a terminal."""
    return tqdm(results, total=total, disable=None, leave=False, mininterval=0.5)


def _print_figures(report):
    width = max(map(len, report.figures))
    for name, one in report.figures.items():
        line = f"{name:{width}}  {_number(one.value)} {one.unit}".rstrip()
        if one.low is not None:
            line += f"  [{_number(one.low)}, {_number(one.high)}]"
        print(line)
    drawn = report.notes.get("interval_draws")
    print(f"{len(report.rows)} {report.items}; 95 % intervals draw {drawn}")
    for name, value in report.notes.items():
        if name not in ("interval_draws", "hint") and value:
            print(f"{name.replace('_', ' ')} {_number(value)}")
    if "hint" in report.notes:
        print(f"mamba-speech: {report.notes['hint']}", file=sys.stderr)


def _number(value):
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
