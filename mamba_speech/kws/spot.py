"""The command `mamba-speech spot`: keywords in recordings and at the microphone.

It prints events, or counts on a recording whose keywords are known how many are
missed and how many reported falsely.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from mamba_speech.arguments import (
    add_device,
    add_inputs,
    add_json,
    add_number,
    add_run_folder,
    given_path,
    number,
    share,
)
from mamba_speech.audio import collected_warnings, open_audio
from mamba_speech.blocks import AudioBlocks
from mamba_speech.evaluation.detection import (
    at_threshold,
    error_curve,
    miss_rate_at,
    read_reference,
)
from mamba_speech.figures import check_matplotlib, miss_curve
from mamba_speech.files import write_json
from mamba_speech.kws.events import LONGEST, REFRACTORY, SMOOTHING, SUPPRESSION, THRESHOLD
from mamba_speech.kws.spotter import HOP_RANGE, HOP_SECONDS, MODES, KeywordSpotter
from mamba_speech.microphone import microphone
from mamba_speech.printing import (
    each_file,
    json_line,
    kinds_of,
    print_records,
    print_warnings,
)
from mamba_speech.recordings import recordings_in
from mamba_speech.results_file import (
    add_existing,
    add_output_file,
    check_existing,
    left_recordings,
    results_file,
)

MICROPHONE = "microphone"
# false alarms an hour at which the miss rate is printed
RATES = (1, 5, 20)


def add_arguments(parser):
    """Give the parser of `mamba-speech spot` its arguments."""
    add_run_folder(parser)
    add_inputs(
        parser,
        "audio file, folder to search for audio, list of recordings, quoted pattern such as '*.flac', or the word "
        f"{MICROPHONE}",
    )
    add_device(parser)
    parser.add_argument("--mode", choices=MODES, help="default: streaming for causal models")
    for name, kind, default, text in (
        ("--threshold", share, THRESHOLD, "least confidence"),
        (
            "--hop_seconds",
            number(*HOP_RANGE),
            HOP_SECONDS,
            "seconds between two windows of mode sliding",
        ),
        (
            "--smoothing",
            number(0, LONGEST),
            SMOOTHING,
            "seconds over which probabilities are averaged",
        ),
        (
            "--suppression",
            number(0, LONGEST, above=True),
            SUPPRESSION,
            "seconds around an event without another that is surer; events come so much later",
        ),
        (
            "--refractory",
            number(0, 3600),
            REFRACTORY,
            "seconds after an event in which no other is reported, whatever its confidence",
        ),
    ):
        add_number(parser, name, kind, default, text)
    add_json(parser)
    add_output_file(parser)
    add_existing(parser, "the output file")
    parser.add_argument(
        "--evaluate",
        type=given_path,
        metavar="EVENTS.json",
        help="what is said when in the one file: print misses and false alarms instead of events",
    )
    parser.add_argument(
        "--curve",
        type=given_path,
        metavar="PREFIX",
        help="with --evaluate: write PREFIX.json and PREFIX.png",
    )
    parser.epilog = (
        "Prints a line an event: path, start and end in seconds, word, confidence, with tabs between. Files that "
        "cannot be read are listed on stderr at the end; then the exit status is 1. The microphone needs the package "
        "sounddevice and ends with Ctrl+C."
    )


def run_command(arguments):
    """Run `mamba-speech spot`; returns the exit status, 0 if every file was good."""
    if arguments.curve and not arguments.evaluate:
        raise ValueError(
            "--curve is drawn of what --evaluate counts: give --evaluate EVENTS.json too"
        )
    if arguments.curve:
        check_matplotlib()
    check_existing(arguments, ("output_file",))
    if arguments.output_file and (arguments.evaluate or MICROPHONE in arguments.inputs):
        other = "--evaluate" if arguments.evaluate else f"the {MICROPHONE}"
        raise ValueError(f"--output_file is for events in recordings: leave it out with {other}")
    spotter = KeywordSpotter.load(arguments.run_folder, arguments.device)
    if spotter.shortcoming:
        print(f"{arguments.run_folder}: {spotter.shortcoming}", file=sys.stderr)
    if arguments.evaluate:
        return _evaluate(arguments, spotter)

    def events(blocks):
        return map(asdict, spotter.stream(blocks, **_options(arguments)))

    if MICROPHONE not in arguments.inputs:
        # piece by piece: a recording of a day takes no more memory than one of a minute
        kept = results_file(arguments)
        recordings = left_recordings(kept, recordings_in(arguments.inputs))
        records = each_file(
            recordings,
            lambda recording: map(asdict, spotter.events(recording, **_options(arguments))),
            marks=True,
        )
        return print_records(records, _columns, "searched", arguments.json, len(recordings), kept)
    if len(arguments.inputs) > 1:
        raise ValueError(f"{MICROPHONE} is listened to alone, without other inputs")
    heard = events(microphone(spotter.sample_rate))
    records = ({"path": MICROPHONE, **event} for event in heard)
    return print_records(records, _columns, "searched", arguments.json)


def _options(arguments):
    names = ("threshold", "smoothing", "suppression", "refractory", "mode", "hop_seconds")
    return {name: getattr(arguments, name) for name in names}


def _columns(event):
    times = (f"{event[name]:.2f}" for name in ("start", "end"))
    return event["path"], *times, event["label"], f"{event['confidence']:.2f}"


def _evaluate(arguments, spotter):
    """Count misses and false alarms on one recording."""
    (file, *others) = arguments.inputs
    if others or not isinstance(file, str) or not Path(file).is_file():
        raise ValueError(
            "--evaluate takes one audio file, the one whose keywords EVENTS.json names"
        )
    reference, seconds = read_reference(arguments.evaluate)
    blocks = AudioBlocks(arguments.inputs[0], spotter.sample_rate)
    with open_audio(arguments.inputs[0]) as audio:
        heard_seconds = audio.check_end() / audio.rate
    if abs(heard_seconds - seconds) > 0.01 * seconds + 1:
        raise ValueError(
            f"{arguments.evaluate} is of a recording of {seconds:.1f} s, but {arguments.inputs[0]} has "
            f"{heard_seconds:.1f} s"
        )
    known = [one for one in reference if one.label in spotter.labels]
    if not known:
        raise ValueError(
            f"{arguments.evaluate}: none of its keywords is among the model's classes "
            f"({', '.join(spotter.labels)})"
        )
    with collected_warnings() as odd:
        # every event: the curve itself leaves out what a threshold and the refractory time leave out
        every = _options(arguments) | {"threshold": 0.0, "refractory": 0.0}
        events = list(spotter.stream(blocks, **every))
    print_warnings(odd)
    curve = error_curve(events, known, seconds, refractory=arguments.refractory)
    chosen = at_threshold(curve, arguments.threshold)
    report = {
        "audio": str(arguments.inputs[0]),
        "seconds": seconds,
        "keywords": len(known),
        "keywords_of_other_classes": len(reference) - len(known),
        "threshold": arguments.threshold,
        "at_threshold": chosen,
        "miss_rate_at_false_alarms_per_hour": {rate: miss_rate_at(curve, rate) for rate in RATES},
    } | kinds_of(odd)
    if arguments.curve:
        write_json(f"{arguments.curve}.json", report | {"curve": curve})
        title = f"{report['keywords']} keywords\n{_at_threshold(report)}"
        miss_curve(curve, chosen, title, f"{arguments.curve}.png")
    _report(report, arguments.json)
    return 0


def _report(report, as_json):
    if as_json:
        print(json_line(report))
        return
    print(f"{report['keywords']} keywords in {report['seconds'] / 60:.1f} minutes")
    if report["keywords_of_other_classes"]:
        print(
            f"{report['keywords_of_other_classes']} more are of no class of the model: not counted"
        )
    print(_at_threshold(report))
    for rate, miss_rate in report["miss_rate_at_false_alarms_per_hour"].items():
        print(f"at most {rate} false alarms an hour: {100 * miss_rate:.1f} % missed")


def _at_threshold(report):
    missed, rate = (report["at_threshold"][name] for name in ("miss_rate", "false_alarms_per_hour"))
    return f"threshold {report['threshold']:g}: {100 * missed:.1f} % missed, {rate:.1f} false alarms an hour"
