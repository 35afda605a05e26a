"""The command `mamba-speech identify`: which speaker of a database is heard, or that it is none of them."""

import sys

from mamba_speech.arguments import add_device, add_inputs, add_json, add_run_folder, given_path
from mamba_speech.printing import print_records, shown_place, with_warnings
from mamba_speech.recordings import recordings_in
from mamba_speech.speaker.database import UNKNOWN, SpeakerDatabase
from mamba_speech.speaker.verifier import SpeakerVerifier
from mamba_speech.speaker.verify import add_threshold


def add_arguments(parser):
    """Give the parser of `mamba-speech identify` its arguments."""
    add_run_folder(parser, "output folder of the training run that made the database")
    add_inputs(parser)
    parser.add_argument(
        "--database",
        type=given_path,
        metavar="FILE",
        required=True,
        help="file that mamba-speech enroll made",
    )
    add_threshold(parser, "the database's")
    add_device(parser)
    add_json(parser)
    parser.epilog = (
        f"Prints a line a file: its path, the speaker, who is {UNKNOWN} if no score is above the threshold, and the "
        "highest score, with tabs between. With --json, all speakers and their scores too. Files that cannot be used "
        "are listed on stderr at the end; then the exit status is 1."
    )


def run_command(arguments):
    """Run `mamba-speech identify`; returns the exit status, 0 if every file was good."""
    database = SpeakerDatabase.read(arguments.database)
    limit = database.limit(arguments.threshold)
    verifier = SpeakerVerifier.load(arguments.run_folder, arguments.device)
    files = recordings_in(arguments.inputs)
    results = verifier.identify(files, database, threshold=limit)
    if not arguments.json:
        source = arguments.database if arguments.threshold is None else "given as --threshold"
        print(f"mamba-speech: threshold {limit:.4f}: {source}", file=sys.stderr, flush=True)
    return print_records(
        map(_record, results),
        lambda one: (shown_place(one), one["speaker"], f"{one['score']:.4f}"),
        "identified",
        arguments.json,
        len(files),
    )


def _record(result):
    if result.error:
        return result.place() | {"error": result.error}
    ranking = [{"speaker": name, "score": score} for name, score in result.ranking]
    return (
        result.place()
        | {
            "speaker": result.speaker or UNKNOWN,
            "score": result.score,
            "threshold": result.threshold,
            "ranking": ranking,
        }
        | with_warnings(result.warnings)
    )
