"""The command `mamba-speech listen`: text from a stream while it comes in, and when each word was said.

The stream is the microphone, standard input, or a file. On a terminal a line is written anew as its words firm up;
elsewhere only lines that change no more are printed.
"""

import re
import signal
import time
from contextlib import contextmanager

from mamba_speech.arguments import (
    LONGEST_TIME,
    MOST_FRAMES,
    MOST_HYPOTHESES,
    MOST_WEIGHT,
    STANDARD_INPUT,
    add_device,
    add_json,
    add_number,
    add_run_folder,
    given_path,
    number,
    rate,
    whole_number,
)
from mamba_speech.asr.line_printer import JSONPrinter, LinePrinter
from mamba_speech.asr.live import DECODINGS, LiveRecognizer
from mamba_speech.asr.session import Session
from mamba_speech.audio import AudioError, collected_warnings, recording_fault
from mamba_speech.audio.piped import PipedAudio, at_rate
from mamba_speech.audio.standard_input import redirected_file, standard_input
from mamba_speech.blocks import AudioBlocks
from mamba_speech.microphone import microphone
from mamba_speech.printing import print_warnings
from mamba_speech.recordings import recordings_of

MICROPHONE = "microphone"
ENDPOINT_SECONDS = 0.8
# as errors name the file that standard input was redirected from
_REDIRECTED = re.compile("/dev/fd/[0-9]+")
# of a file: a chunk may be longer, and is then heard in parts
MOST_PIECE_SECONDS = 5.0


def add_arguments(parser):
    """Give the parser of `mamba-speech listen` its arguments."""
    add_run_folder(parser, "output folder of a streaming recipe, such as conmamba_streaming_small")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        type=given_path,
        nargs="*",
        help=f"audio file, {STANDARD_INPUT} for standard input, or the word {MICROPHONE}, the default",
    )
    add_device(parser)
    parser.add_argument(
        "--raw",
        type=rate,
        metavar="RATE",
        help="rate of raw 16-bit little-endian samples in one channel on standard input; default: it is a WAV file",
    )
    parser.add_argument(
        "--real_time", action="store_true", help="a file at the speed at which it was spoken"
    )
    parser.add_argument(
        "--chunk_size",
        type=whole_number(1, MOST_FRAMES),
        metavar="N",
        help="frames of 40 ms that a result waits for; default: the run's",
    )
    parser.add_argument(
        "--decoding",
        choices=DECODINGS,
        help="decoding; default: the run's",
    )
    parser.add_argument(
        "--beam_size",
        type=whole_number(1, MOST_HYPOTHESES),
        metavar="N",
        help="hypotheses of the search; default: the run's",
    )
    parser.add_argument(
        "--lm",
        type=given_path,
        metavar="PATH",
        help="language model of the search; default: the run's",
    )
    parser.add_argument(
        "--lm_weight",
        type=number(0, MOST_WEIGHT),
        metavar="W",
        help="weight of the language model; default: the run's, or 0.5",
    )
    text = "seconds of silence that end a line"
    kind = number(0.04, LONGEST_TIME)
    add_number(parser, "--endpoint_seconds", kind, ENDPOINT_SECONDS, text)
    add_json(parser)
    parser.epilog = (
        "Prints a line when its words change no more: start and end in seconds and the text, with tabs between. On a "
        "terminal the line is shown from its first word on. Ends with a summary on stderr, or in the last JSON object. "
        "Ctrl+C ends a stream: what was heard is printed first. The microphone needs the package sounddevice."
    )


def run_command(arguments):
    """Run `mamba-speech listen`; returns the exit status, 0 if the stream was good to its end."""
    name = _check_input(arguments)
    names = ("chunk_size", "decoding", "beam_size", "lm", "lm_weight")
    given = {one: getattr(arguments, one) for one in names if getattr(arguments, one) is not None}
    live = LiveRecognizer.load(
        arguments.run_folder,
        arguments.device,
        endpoint_silence=arguments.endpoint_seconds,
        **given,
    )
    with _named(name):
        pieces = _pieces(arguments, name, live)
    if arguments.real_time:
        pieces = paced(pieces, live.sample_rate)
    session = Session(live, is_live=arguments.real_time or name == MICROPHONE)
    printer = JSONPrinter() if arguments.json else LinePrinter()
    with collected_warnings() as odd, _named(name):
        status = _listen(session, pieces, printer, name)
    print_warnings([one._replace(text=_as_named(one.text, name)) for one in odd])
    return status


def _as_named(text, name):
    """A sentence about the sound that calls a redirected file by what the user gave."""
    return _REDIRECTED.sub("standard input", text) if name == STANDARD_INPUT else text


@contextmanager
def _named(name):
    """Errors inside call a redirected file by what the user gave."""
    try:
        yield
    except AudioError as error:
        raise AudioError(_as_named(str(error), name), error.reason) from error


def _check_input(arguments):
    """The one stream that is meant, or what is wrong with it."""
    inputs = arguments.inputs or [MICROPHONE]
    if len(inputs) > 1:
        raise ValueError(
            f"listen hears one stream, and was given {len(inputs)} inputs: mamba-speech transcribe takes many files"
        )
    (name,) = inputs
    if arguments.raw is not None and name != STANDARD_INPUT:
        raise ValueError(f"--raw is of standard input: give {STANDARD_INPUT} in place of {name}")
    if arguments.real_time and name == MICROPHONE:
        raise ValueError("the microphone is heard in real time anyway: leave out --real_time")
    if name not in (MICROPHONE, STANDARD_INPUT) and recordings_of(name)[1]:
        raise ValueError(
            f"{name}: names many recordings, and listen hears one: mamba-speech transcribe takes folders and lists"
        )
    return name


def _pieces(arguments, name, live):
    """Mono pieces at the recogniser's rate, of a chunk at most."""
    longest = min(live.latency, MOST_PIECE_SECONDS)
    if name == MICROPHONE:
        return microphone(live.sample_rate, live.frame_seconds)
    path = name
    if name == STANDARD_INPUT:
        path = None if arguments.raw else redirected_file()
        if path is None:
            piped = PipedAudio(standard_input(), arguments.raw, longest)
            return at_rate(piped, live.sample_rate)
    blocks = AudioBlocks(path, live.sample_rate)
    return (
        piece
        for block in blocks
        for piece in block.split(max(1, round(longest * live.sample_rate)))
    )


def paced(pieces, sample_rate):
    """Pieces (samples,) as if they were spoken now: each is given when its last sample is due."""
    began, heard = time.monotonic(), 0
    for piece in pieces:
        heard += len(piece)
        time.sleep(max(0.0, began + heard / sample_rate - time.monotonic()))
        yield piece


class _Fault(Exception):
    """What ended the sound before its end; its cause is the error."""


class _Interrupts:
    """Ctrl-C between two pieces: a piece that is at work is finished first. A second one ends at once."""

    def __enter__(self):
        self.waiting = self.asked = False
        self.before = signal.getsignal(signal.SIGINT)
        try:
            if self.before is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._handle)
        except ValueError:
            # not the main thread, which gets no signals
            self.before = None
        return self

    def __exit__(self, *_):
        if self.before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self.before)

    def _handle(self, *_):
        if self.waiting or self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def pieces(self, source):
        """The pieces of a source, until Ctrl-C raises KeyboardInterrupt; errors of the source become faults."""
        source = iter(source)
        while True:
            self.waiting = True
            try:
                if self.asked:
                    raise KeyboardInterrupt
                piece = next(source, None)
            except (OSError, RuntimeError, ValueError) as error:
                raise _Fault from error
            finally:
                self.waiting = False
            if piece is None:
                return
            yield piece


def _heard(session, piece):
    """The records of a piece; an error of the network ends the sound as an error of its source does."""
    try:
        return session.hear(piece)
    except (RuntimeError, ValueError) as error:
        raise _Fault from error


def _listen(session, pieces, printer, name):
    """Hear all pieces and print what they give; returns the exit status."""
    error = interrupt = None
    with _Interrupts() as interrupts:
        try:
            for piece in interrupts.pieces(pieces):
                printer.show(_heard(session, piece), session)
        except KeyboardInterrupt as stopped:
            interrupt = stopped
        except _Fault as fault:
            if not session.samples:
                raise fault.__cause__ from None
            said = "standard input" if name == STANDARD_INPUT else name
            error = _as_named(recording_fault(said, fault.__cause__), name)
        printer.show(session.finish(), session)
        printer.end(session.summary(), error)
    if interrupt:
        raise interrupt
    return 1 if error else 0
