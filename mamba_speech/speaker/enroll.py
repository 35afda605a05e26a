"""The command `mamba-speech enroll`: add recordings of a speaker to a database."""

import sys
from pathlib import Path

from mamba_speech.arguments import add_device, add_inputs, add_json, add_run_folder, given_path
from mamba_speech.printing import print_records, shown_place, with_warnings
from mamba_speech.recordings import recordings_in
from mamba_speech.speaker.database import SpeakerDatabase, check_name, enroll
from mamba_speech.speaker.verifier import SpeakerVerifier
from mamba_speech.speaker.verify import add_threshold


def add_arguments(parser):
    """Give the parser of `mamba-speech enroll` its arguments."""
    add_run_folder(parser)
    parser.add_argument("name", metavar="NAME", help="name of the speaker")
    add_inputs(parser)
    parser.add_argument(
        "--database",
        type=given_path,
        metavar="FILE",
        required=True,
        help="JSON file; made if it is not there",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="forget the recordings that were enrolled under the name before; by default they add up",
    )
    add_threshold(parser, "the database's, else the run's")
    add_device(parser)
    add_json(parser)
    parser.epilog = (
        "Prints a line a file: its path and its seconds of speech, with a tab between. A voice is the mean of the "
        "embeddings of its recordings; a recording that was enrolled before counts once. Files that cannot be used are "
        "listed on stderr at the end; then the exit status is 1, and the others are enrolled."
    )


def run_command(arguments):
    """Run `mamba-speech enroll`; returns the exit status, 0 if every file was good."""
    name, path = arguments.name, Path(arguments.database)
    check_name(name)
    verifier = SpeakerVerifier.load(arguments.run_folder, arguments.device)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder is not there")
    if path.exists():
        # before the work; it is read again when it is written
        SpeakerDatabase.read(path).check_model(verifier.weights_hash)
    files = recordings_in(arguments.inputs)
    embeddings = []

    def records():
        for one in verifier.embed(files):
            embeddings.append(one)
            told = {"error": one.error} if one.error else {"speech_seconds": one.speech_seconds}
            yield {**one.place(), **told, **with_warnings(one.warnings)}

    status = print_records(
        records(),
        lambda one: (shown_place(one), f"{one['speech_seconds']:.2f}"),
        "enrolled",
        arguments.json,
        len(files),
    )
    limit = verifier.threshold.value if verifier.threshold else None
    added, count = enroll(
        path,
        name,
        embeddings,
        verifier.weights_hash,
        limit,
        arguments.threshold,
        arguments.replace,
    )
    if count:
        recordings = "1 recording" if count == 1 else f"{count} recordings"
        text = f"{name} has {recordings} in {path}, {added} new"
        print(f"mamba-speech: {text}", file=sys.stderr)
    return status
