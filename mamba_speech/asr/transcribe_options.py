"""What `mamba-speech transcribe` tells beside the text, and the files that it writes: options and their checks."""

from mamba_speech.arguments import MOST_HYPOTHESES, given_path, whole_number
from mamba_speech.asr.transcript_files import ALL
from mamba_speech.asr.transcript_formats import FORMATS


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
    parser.add_argument(
        "--overwrite", action="store_true", help="replacement of files that are there"
    )
    parser.add_argument(
        "--skip_existing", action="store_true", help="recordings left out that have their files"
    )


def check_details(arguments):
    """Refuse options that do nothing, or contradict one another.

    Raises
    ------
    ValueError
    """
    names = ("format", "overwrite", "skip_existing")
    idle = next((name for name in names if getattr(arguments, name)), None)
    if idle and arguments.output_folder is None:
        raise ValueError(f"--{idle} is for files: give --output_folder too")
    if arguments.overwrite and arguments.skip_existing:
        raise ValueError("--overwrite and --skip_existing contradict one another: give one of them")
    wanted = {"word_times": arguments.word_times, "confidence": arguments.confidence}
    wanted["nbest"] = arguments.nbest > 1
    idle = next((name for name, given in wanted.items() if given), None)
    if idle and arguments.output_folder is None and not arguments.json:
        raise ValueError(f"--{idle} has no place in lines of text: give --output_folder or --json")
