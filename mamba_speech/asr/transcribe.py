"""The command `mamba-speech transcribe`: text from audio files."""

import sys

from mamba_speech.arguments import (
    add_device,
    add_inputs,
    add_json,
    add_number,
    add_run_folder,
    number,
    some_seconds,
)
from mamba_speech.asr.recognizer import BATCH_SECONDS, MAX_WINDOW_SECONDS, Recognizer
from mamba_speech.asr.transcribe_options import (
    SEARCH_OPTIONS,
    add_details,
    add_search,
    check_details,
)
from mamba_speech.asr.transcript_files import ALL, TranscriptFiles
from mamba_speech.asr.transcript_formats import details_of
from mamba_speech.asr.voice_activity import GATES
from mamba_speech.asr.windows import LONGEST_WINDOW, SHORTEST_WINDOW
from mamba_speech.printing import LongProgress, print_records, shown_place, with_warnings
from mamba_speech.recordings import recordings_in
from mamba_speech.results_file import left_recordings, results_file


def add_arguments(parser):
    """Give the parser of `mamba-speech transcribe` its arguments."""
    add_run_folder(parser)
    add_inputs(parser)
    add_device(parser)
    add_search(parser)
    add_json(parser)
    add_details(parser)
    text = "seconds of audio in a batch; fewer need less memory, more may be faster"
    add_number(parser, "--batch_seconds", some_seconds, BATCH_SECONDS, text)
    text = "longest recording recognised as a whole, in seconds, and longest window of longer ones"
    window = number(SHORTEST_WINDOW, LONGEST_WINDOW)
    add_number(parser, "--max_window_seconds", window, MAX_WINDOW_SECONDS, text)
    parser.add_argument(
        "--vad",
        choices=GATES,
        default="auto",
        help="gate that gives recordings without speech no text; auto: silero, or energy where silero-vad is not "
        "installed (default: auto)",
    )
    parser.epilog = (
        "Prints a line a file: its path, a tab, and the text. Of parts of files, which lists name, start and end in "
        "seconds follow the path. With --output_folder it also writes NAME.txt and so on for each input. NAME keeps "
        "the tree of folders, and the ending where a.wav and a.flac lie side by side. Files that cannot be read are "
        "left out, and listed on stderr at the end; then the exit status is 1."
    )


def run_command(arguments):
    """Run `mamba-speech transcribe`; returns the exit status, 0 if every file was good."""
    check_details(arguments)
    files = _planned_files(arguments)
    search = {name: getattr(arguments, name) for name in SEARCH_OPTIONS}
    recognizer = Recognizer.load(arguments.run_folder, arguments.device, **search)
    recordings = recordings_in(arguments.inputs) if files is None else files.recordings
    kept = results_file(arguments)
    recordings = left_recordings(kept, recordings)
    times = arguments.word_times or arguments.confidence or (files and files.needs_times)
    results = recognizer.transcribe(
        recordings,
        batch_seconds=arguments.batch_seconds,
        word_times=times,
        nbest=arguments.nbest,
        max_window_seconds=arguments.max_window_seconds,
        vad=arguments.vad,
        progress=LongProgress(),
    )
    details = {"word_times": arguments.word_times, "confidence": arguments.confidence}
    records = (_record(one, files, details) for one in results)
    return print_records(
        records,
        lambda one: (shown_place(one), one["text"]),
        "transcribed",
        arguments.json,
        len(recordings),
        kept,
    )


def _record(result, files, details):
    """What is printed of a result, whose files are written first."""
    error = files and files.write(result, **details)
    if result.error or error:
        return result.place() | {"error": result.error or error}
    told = {"text": result.text, "seconds": result.seconds} | details_of(result, **details)
    return result.place() | told | with_warnings(result.warnings)


def _planned_files(arguments):
    """The files to be written, or None."""
    if arguments.output_folder is None:
        return None
    existing = "replace" if arguments.overwrite else "skip" if arguments.resume else "refuse"
    kind = arguments.format or ALL
    files = TranscriptFiles(arguments.inputs, arguments.output_folder, kind, existing)
    if files.skipped:
        print(
            f"mamba-speech: left out, since their files are there: {files.skipped}", file=sys.stderr
        )
    return files
