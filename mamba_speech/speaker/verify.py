"""The command `mamba-speech verify`: whether recordings are of one speaker."""

import os
import sys
from pathlib import Path

from mamba_speech.arguments import (
    add_device,
    add_inputs,
    add_json,
    add_run_folder,
    given_path,
    score,
)
from mamba_speech.audio import find_audio
from mamba_speech.printing import print_records, shown_place, with_warnings
from mamba_speech.recordings import recordings_in
from mamba_speech.results_file import (
    add_existing,
    add_output_file,
    check_existing,
    left_recordings,
    recording_key,
    results_file,
)
from mamba_speech.speaker.embedding import embed_files
from mamba_speech.speaker.threshold import Threshold
from mamba_speech.speaker.verifier import SpeakerVerifier

SAME, DIFFERENT, UNDECIDED = "same speaker", "different speakers", "no threshold"


def add_arguments(parser):
    """Give the parser of `mamba-speech verify` its arguments."""
    add_run_folder(parser)
    add_inputs(
        parser,
        "two audio files, or more: each further file, folder, list of recordings or quoted pattern is compared with "
        "the first",
        nargs="*",
        metavar="FILE",
    )
    parser.add_argument(
        "--pairs",
        type=given_path,
        metavar="LIST",
        help="text file with two audio files a line, a tab between them, to compare in place of FILE",
    )
    add_threshold(parser, "the run's, which it set on trials of its validation speakers")
    add_device(parser)
    add_json(parser)
    add_output_file(parser)
    add_existing(parser, "the output file")
    parser.epilog = (
        "Prints a line a pair: both paths, the score (the cosine of two embeddings, from -1 to 1) and the decision, "
        "with tabs between. The decision is the same speaker if the score is above the threshold. stderr says where "
        "the threshold comes from. Files that cannot be used are listed there at the end; then the exit status is 1. "
        "The decision does not change the exit status."
    )


def add_threshold(parser, default):
    """Add `--threshold`."""
    parser.add_argument(
        "--threshold",
        type=score,
        metavar="SCORE",
        help=f"score above which two recordings are of one speaker; default: {default}",
    )


def run_command(arguments):
    """Run `mamba-speech verify`; returns the exit status, 0 if every file was good."""
    if (arguments.pairs is None) == (len(arguments.inputs) < 2):
        raise ValueError("give two files or more, or else a list of them as --pairs LIST")
    if arguments.pairs is not None and arguments.inputs:
        raise ValueError("--pairs LIST names the files: give no others")
    check_existing(arguments, ("output_file",))
    pairs = None if arguments.pairs is None else read_pairs(arguments.pairs)
    verifier = SpeakerVerifier.load(arguments.run_folder, arguments.device)
    kept = results_file(arguments)
    if arguments.threshold is not None:
        verifier.threshold = Threshold(arguments.threshold, "given as --threshold")
    if not arguments.json:
        say_threshold(verifier)
    if pairs is None:
        first, *others = arguments.inputs
        others = left_recordings(kept, recordings_in(others), _key_with(first))
        results, total = verifier.verify(first, others), len(others)
    else:
        pairs = left_recordings(kept, pairs, list)
        results, total = _each_pair(verifier, pairs), len(pairs)
    records = map(_record, results)
    return print_records(records, _columns, "compared", arguments.json, total, kept)


def _key_with(first):
    """What tells a comparison with the first recording from others; None with standard input on either side."""

    def key(recording):
        own = recording_key(recording)
        return None if own is None or not isinstance(first, str) else [os.path.abspath(first), *own]

    return key


def say_threshold(verifier):
    """Tell on stderr which threshold holds and where it comes from."""
    limit = verifier.threshold
    if limit is None:
        text = "the run has no threshold: scores only; give --threshold SCORE for decisions"
    else:
        text = f"threshold {limit.value:.4f}: {limit.source}"
    print(f"mamba-speech: {text}", file=sys.stderr, flush=True)


def read_pairs(file):
    """The pairs of files that a list names.

    Arguments
    ---------
    file : str or Path
        A line a pair, a tab between the two; where neither holds a space, spaces will do.

    Returns
    -------
    list of (str, str)

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line does not name two files, or no line does.
    """
    pairs = []
    text = Path(file).read_text(encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        names = line.split("\t") if "\t" in line else line.split()
        names = [name.strip() for name in names]
        if not any(names):
            continue
        if len(names) != 2 or not all(names):
            raise ValueError(
                f"{file}: line {number} must name two files, with a tab between them; got {line!r:.80} "
                "(score.py of the recipe takes lists of trials)"
            )
        folder = next((name for name in names if Path(name).is_dir()), None)
        if folder:
            raise ValueError(f"{file}: line {number} names the folder {folder}; name two files")
        pairs.append(
            tuple(name if os.path.lexists(name) else str(*find_audio([name])) for name in names)
        )
    if not pairs:
        raise ValueError(f"{file}: names no pair of files")
    return pairs


def _each_pair(verifier, pairs):
    """The verification of each pair; each file is read once."""
    known = {}
    for pair in pairs:
        for path in pair:
            if path not in known:
                (known[path],) = embed_files(verifier.model, [path])
        yield verifier.compare(*(known[path] for path in pair))


def _record(result):
    told = ("path", "enrolment", "score", "same", "threshold", "threshold_source")
    told = ("path", "enrolment", "error") if result.error else told
    told = {name: getattr(result, name) for name in told}
    return told | result.place() | with_warnings(result.warnings)


def _columns(record):
    decision = {True: SAME, False: DIFFERENT, None: UNDECIDED}[record["same"]]
    return record["enrolment"], shown_place(record), f"{record['score']:.4f}", decision
