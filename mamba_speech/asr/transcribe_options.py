"""What `mamba-speech transcribe` tells beside the text, and the files that it writes: options and their checks."""

from mamba_speech.arguments import (
    MOST_FRAMES,
    MOST_HYPOTHESES,
    MOST_WEIGHT,
    given_path,
    number,
    whole_number,
)
from mamba_speech.asr.decoders import DECODINGS
from mamba_speech.asr.transcript_files import ALL
from mamba_speech.asr.transcript_formats import FORMATS
from mamba_speech.results_file import add_existing, add_output_file, check_existing

# arguments of Recognizer.load
SEARCH_OPTIONS = ("decoding", "beam_size", "lm", "lm_weight", "no_lm", "ctc_only", "chunk_size")


def add_search(parser):
    """Give a parser the options of decoding, whose names are ``SEARCH_OPTIONS``."""
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


def add_details(parser):
    """Give a parser the options of files and details."""
    parser.add_argument(
        "--output_folder", type=given_path, metavar="FOLDER", help="folder of files with the text"
    )
    parser.add_argument(
        "--format",
        choices=(*FORMATS, ALL),
        help=f"format of the files in the output folder (default: {ALL})",
    )
    parser.add_argument(
        "--word_times", action="store_true", help="start and end of each word, in files and --json"
    )
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="certainty of words and segments, 0 to 1, in tsv and JSON",
    )
    parser.add_argument(
        "--nbest",
        type=whole_number(1, MOST_HYPOTHESES),
        default=1,
        metavar="N",
        help="most texts of a recording in JSON, with the scores of the beam search",
    )
    add_output_file(parser)
    add_existing(parser, "the output folder or file")


def check_details(arguments):
    """Refuse options that do nothing, or contradict one another.

    Raises
    ------
    ValueError
    """
    if arguments.format and arguments.output_folder is None:
        raise ValueError("--format is for files: give --output_folder too")
    check_existing(arguments, ("output_folder", "output_file"))
    if arguments.resume and arguments.output_folder and arguments.output_file:
        raise ValueError("--resume goes on with one of them: give --output_folder or --output_file")
    wanted = {"word_times": arguments.word_times, "confidence": arguments.confidence}
    wanted["nbest"] = arguments.nbest > 1
    idle = next((name for name, given in wanted.items() if given), None)
    if idle and arguments.output_folder is None and not arguments.json:
        raise ValueError(f"--{idle} has no place in lines of text: give --output_folder or --json")
