"""The command `mamba-speech separate`: each speaker of a recording in a file of its own."""

import math
import os
import sys
from pathlib import Path

from mamba_speech.arguments import (
    add_device,
    add_inputs,
    add_json,
    add_number,
    add_run_folder,
    given_path,
    number,
)
from mamba_speech.audio import AudioError, is_folder
from mamba_speech.audio.names import plain
from mamba_speech.audio.outputs import plan_names
from mamba_speech.listed import plan_recordings
from mamba_speech.printing import each_file, print_records, shown_place
from mamba_speech.results_file import add_existing, check_existing
from mamba_speech.separation.loudness import LEVELS
from mamba_speech.separation.separator import (
    OVERLAP_SECONDS,
    WINDOW_SECONDS,
    Separator,
    source_paths,
)

# seconds of a window: the encoder needs some samples, and memory grows with the window
WINDOW_RANGE = (0.001, 3600.0)


def add_arguments(parser):
    """Give the parser of `mamba-speech separate` its arguments."""
    add_run_folder(
        parser,
        "output folder of a training run, or folder with encoder.ckpt, masknet.ckpt and decoder.ckpt",
    )
    add_inputs(parser)
    parser.add_argument(
        "--output_folder", type=given_path, required=True, help="folder of the sources"
    )
    add_device(parser)
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default=LEVELS[0],
        help="loudness of the sources: mixture, as in the recording (default); peak, the most without clipping",
    )
    parser.add_argument(
        "--keep_rate", action="store_true", help="the input's sample rate, in place of the model's"
    )
    add_existing(parser, "the output folder")
    for name, kind, default, text in (
        ("--window_seconds", number(*WINDOW_RANGE), WINDOW_SECONDS, "seconds separated at a time"),
        (
            "--overlap_seconds",
            number(0, WINDOW_RANGE[1]),
            OVERLAP_SECONDS,
            "seconds that two windows share",
        ),
    ):
        add_number(parser, name, kind, default, text)
    add_json(parser)
    parser.epilog = (
        "Writes NAME_s1.wav, NAME_s2.wav and so on for each input. Of a folder, its tree is kept; of several inputs, "
        "the tree below the folder that holds them all. Where a.wav and a.flac lie side by side, their endings stay in "
        "NAME. Prints a line an input: its path and those of its sources, with tabs between. Files that cannot be "
        "separated are listed on stderr at the end; then the exit status is 1. Causal models need no windows."
    )


def run_command(arguments):
    """Run `mamba-speech separate`; returns the exit status, 0 if every file was good."""
    check_existing(arguments, ("output_folder",))
    folder = Path(arguments.output_folder)
    plan = plan_recordings(
        arguments.inputs,
        lambda inputs: plan_outputs(inputs, folder),
        lambda name: folder / name,
    )
    separator = Separator.load(arguments.run_folder, arguments.device)
    separator.check_windows(arguments.window_seconds, arguments.overlap_seconds)
    recordings = {os.path.realpath(one.path) for one in plan}
    if arguments.resume:
        plan = _left(plan, separator.num_spks, folder)

    def separate(recording):
        outputs = source_paths(plan[recording], separator.num_spks)
        recording.check()
        # of a killed command, some of the sources may be there
        replaces = arguments.overwrite or arguments.resume
        _check_free(recording.path, outputs, recordings, replaces)
        factor = separator.separate_file(
            recording,
            outputs,
            arguments.level,
            arguments.keep_rate,
            arguments.window_seconds,
            arguments.overlap_seconds,
        )
        yield {"sources": [str(one) for one in outputs]}
        if factor < 1:
            print(
                f"mamba-speech: {plain(recording.path, backslashes=False)}: its sources were turned down by "
                f"{-20 * math.log10(factor):.1f} dB, or they would clip",
                file=sys.stderr,
            )

    records = each_file(plan, separate)
    return print_records(
        records,
        lambda one: (shown_place(one), *one["sources"]),
        "separated",
        arguments.json,
        len(plan),
    )


def _left(plan, speakers, folder):
    """The part of a plan whose sources are not all there, with a line on stderr about the other part."""
    left = {
        recording: output
        for recording, output in plan.items()
        if not all(one.exists() for one in source_paths(output, speakers))
    }
    if len(left) < len(plan):
        text = f"{folder}: left out, since their sources are there: {len(plan) - len(left)}"
        print(f"mamba-speech: {plain(text, backslashes=False)}", file=sys.stderr)
    return left


def plan_outputs(inputs, output_folder):
    """Which files are separated, and what the names of their sources begin with.

    Arguments
    ---------
    inputs : list of str
        Files and folders.
    output_folder : Path
        What lies in it already is no input, where it is part of a given folder.

    Returns
    -------
    plan : dict of Path to Path
        From recordings to outputs without ``_s1.wav``; see :func:`mamba_speech.audio.outputs.plan_names`.

    Raises
    ------
    ValueError
        If sources would be written among the recordings of a folder that is searched.
    """
    # not Path.resolve(), which raises RuntimeError for links that lead in a circle
    where = Path(os.path.realpath(output_folder))
    if any(is_folder(one) and Path(os.path.realpath(one)) == where for one in inputs):
        raise ValueError(
            f"--output_folder {output_folder} is the folder that is searched: the next run would separate the "
            "sources again; give another"
        )
    given = {Path(one) for one in inputs}
    return {
        path: output_folder / name
        for path, name in plan_names(inputs).items()
        if path in given or where not in Path(os.path.realpath(path)).parents
    }


def _check_free(path, outputs, recordings, overwrite):
    """Keep one input from writing over another, and over older files unless that was asked for."""
    given = next((one for one in outputs if os.path.realpath(one) in recordings), None)
    if given:
        raise AudioError(
            f"{path}: its sources would replace {given}, which is to be separated too; give another --output_folder"
        )
    there = next((one for one in outputs if one.exists()), None)
    if there and not overwrite:
        raise AudioError(f"{path}: {there} is there already; give --overwrite to replace it")
