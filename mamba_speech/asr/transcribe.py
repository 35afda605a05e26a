"""The command `mamba-speech transcribe`: text from audio files."""

import sys

from mamba_speech.arguments import (
    MOST_FRAMES,
    MOST_HYPOTHESES,
    MOST_WEIGHT,
    add_device,
    add_inputs,
    add_json,
    add_number,
    add_run_folder,
    given_path,
    number,
    some_seconds,
    whole_number,
)
from mamba_speech.asr.decoders import DECODINGS
from mamba_speech.asr.recognizer import BATCH_SECONDS, Recognizer
from mamba_speech.asr.transcribe_options import add_details, check_details
from mamba_speech.asr.transcript_files import ALL, TranscriptFiles
from mamba_speech.asr.transcript_formats import details_of
from mamba_speech.printing import print_records, shown_place, with_warnings


def add_arguments(parser):
    """Give the parser of `mamba-speech transcribe` its arguments."""
    add_run_folder(parser)
    add_inputs(parser)
    add_device(parser)
    parser.add_argument(
        "--decoding",
        choices=DECODINGS,
        help="decoding of a CTC run; default: the run's test_decoding",
    )
    parser.add_argument(
        "--beam_size",
        type=whole_number(1, MOST_HYPOTHESES),
        metavar="N",
        help="hypotheses of the beam search; default: the run's",
    )
    parser.add_argument(
        "--lm",
        type=given_path,
        metavar="FOLDER",
        help="language model of the search, a run of train_LM.py; default: the S2S run's, if it has one",
    )
    parser.add_argument(
        "--lm_weight",
        type=number(0, MOST_WEIGHT),
        metavar="W",
        help="weight of the language model; default: the S2S run's, or 0.5 for a CTC run",
    )
    parser.add_argument(
        "--no_lm", action="store_true", help="search of an S2S run without a language model"
    )
    parser.add_argument(
        "--ctc_only",
        action="store_true",
        help="best path of an S2S run's CTC output, which is fast and less accurate",
    )
    parser.add_argument(
        "--chunk_size",
        type=whole_number(1, MOST_FRAMES),
        metavar="N",
        help="frames of 40 ms in a chunk of a streaming run; default: the run's",
    )
    add_json(parser)
    add_details(parser)
    text = "seconds of audio in a batch; fewer need less memory, more may be faster"
    add_number(parser, "--batch_seconds", some_seconds, BATCH_SECONDS, text)
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
    recognizer = Recognizer.load(
        arguments.run_folder,
        arguments.device,
        decoding=arguments.decoding,
        beam_size=arguments.beam_size,
        lm=arguments.lm,
        no_lm=arguments.no_lm,
        ctc_only=arguments.ctc_only,
        lm_weight=arguments.lm_weight,
        chunk_size=arguments.chunk_size,
    )
    times = arguments.word_times or arguments.confidence or (files and files.needs_times)
    results = recognizer.transcribe(
        arguments.inputs if files is None else files.recordings,
        batch_seconds=arguments.batch_seconds,
        word_times=times,
        nbest=arguments.nbest,
    )
    details = {"word_times": arguments.word_times, "confidence": arguments.confidence}
    records = (_record(one, files, details) for one in results)
    return print_records(
        records, lambda one: (shown_place(one), one["text"]), "transcribed", arguments.json
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
    existing = "replace" if arguments.overwrite else "skip" if arguments.skip_existing else "refuse"
    kind = arguments.format or ALL
    files = TranscriptFiles(arguments.inputs, arguments.output_folder, kind, existing)
    if files.skipped:
        print(
            f"mamba-speech: left out, since their files are there: {files.skipped}", file=sys.stderr
        )
    return files
