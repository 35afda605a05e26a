"""The command `mamba-speech transcribe`: text from audio files."""

from mamba_speech.arguments import (
    MOST_FRAMES,
    MOST_HYPOTHESES,
    add_device,
    add_inputs,
    add_json,
    add_number,
    add_run_folder,
    given_path,
    some_seconds,
    whole_number,
)
from mamba_speech.asr.decoders import DECODINGS
from mamba_speech.asr.recognizer import BATCH_SECONDS, Recognizer
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
        help="language model of an S2S run's search; default: the run's, if it has one",
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
    text = "seconds of audio in a batch; fewer need less memory, more may be faster"
    add_number(parser, "--batch_seconds", some_seconds, BATCH_SECONDS, text)
    parser.epilog = (
        "Prints a line a file: its path, a tab, and the text. Of parts of files, which lists name, start and end in "
        "seconds follow the path. Files that cannot be read are left "
        "out, and listed on stderr at the end; then the exit status is 1."
    )


def run_command(arguments):
    """Run `mamba-speech transcribe`; returns the exit status, 0 if every file was good."""
    recognizer = Recognizer.load(
        arguments.run_folder,
        arguments.device,
        decoding=arguments.decoding,
        beam_size=arguments.beam_size,
        lm=arguments.lm,
        no_lm=arguments.no_lm,
        ctc_only=arguments.ctc_only,
        chunk_size=arguments.chunk_size,
    )
    results = recognizer.transcribe(arguments.inputs, batch_seconds=arguments.batch_seconds)
    records = (
        one.place() | {"error": one.error}
        if one.error
        else one.place() | {"text": one.text, "seconds": one.seconds} | with_warnings(one.warnings)
        for one in results
    )
    return print_records(
        records, lambda one: (shown_place(one), one["text"]), "transcribed", arguments.json
    )
