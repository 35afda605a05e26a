"""The command `mamba-speech`: one sub-command a task, each registered by the task's own module.

A task's module has `add_arguments(parser)` and `run_command(arguments)`, which returns the exit
status. It is imported only when its command is called, so that help and mistakes cost no time.
"""

import argparse
import importlib
import logging
import os
import sys

from mamba_speech import __version__, synthetic
from mamba_speech.audio.names import ESCAPES, PlainFormatter, plain, safe_streams
from mamba_speech.task_commands import check_task

# command: module, and what the command does
COMMANDS = {
    "transcribe": ("mamba_speech.asr.transcribe", "write down what is said in audio files"),
    "listen": ("mamba_speech.asr.listen", "write down speech while it is spoken"),
    "spot": ("mamba_speech.kws.spot", "report keywords in audio files or at the microphone"),
    "separate": (
        "mamba_speech.separation.separate",
        "write each speaker of a recording into a file of its own",
    ),
    "verify": ("mamba_speech.speaker.verify", "say whether recordings are of one speaker"),
    "embed": ("mamba_speech.speaker.embed", "write the speaker embeddings of audio files"),
    "enroll": ("mamba_speech.speaker.enroll", "add recordings of a speaker to a database"),
    "identify": (
        "mamba_speech.speaker.identify",
        "say which speaker of a database is heard, if any",
    ),
    "serve": ("mamba_speech.serving.serve", "answer over HTTP and WebSocket with trained models"),
    "export": ("mamba_speech.export.command", "write a trained model as a folder that others load"),
    "info": ("mamba_speech.commands.info", "say what a run is, and how good it was in its tests"),
    "evaluate": ("mamba_speech.commands.evaluate", "test a run on a list with references"),
    "benchmark": ("mamba_speech.commands.benchmark", "measure the speed and memory of a run"),
    "doctor": ("mamba_speech.commands.doctor", "say what this machine has, and what it lacks"),
    "completion": ("mamba_speech.commands.completion", "print a script of shell completion"),
}
A_RUN = (
    "A run is the output folder of a training. `make demo` trains a first one, results/demo/run, in some ten minutes; "
    "the recipes train others. Folders that mamba-speech export wrote are runs too."
)


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: options may stand before, between and after its files."""

    _is_reading = False

    def parse_known_args(self, args=None, namespace=None):
        """As argparse, with options between positional arguments."""
        # some versions of Python come back here
        if self._is_reading:
            return super().parse_known_args(args, namespace)
        self._is_reading = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_reading = False

    def error(self, message):
        """As argparse; a command that got no run says what one is."""
        lacks_run = "required" in message and "RUN_FOLDER" in message
        super().error(f"{message}\n{A_RUN}" if lacks_run else message)


def main(argv=None):
    """Run the command line.

    Arguments
    ---------
    argv : list of str, optional
        Arguments without the program's name; by default the process's own.

    Returns
    -------
    status : int
        0 if all went well; 1 if some files failed; 2 if nothing could be done; 130 after Ctrl-C.
        Mistakes in the arguments raise SystemExit(2), as argparse does.
    """
    try:
        return run(sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:
        # also while the command's libraries are loaded, which takes seconds
        print("mamba-speech: interrupted", file=sys.stderr)
        return 130


def run(argv):
    """Run the command that `argv` names, and turn what it raises into a line and an exit status."""
    parser = make_parser(argv)
    if not argv:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        # with the usage of the command, which argparse would replace by the program's
        arguments.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    safe_streams()
    # SpeechBrain's loggers take their level from here when they are first imported
    os.environ["SB_LOG_LEVEL"] = "WARNING"
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("mamba-speech: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        status = _run_command(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            # the reader of our output has left, as `head` does; nothing more can be said to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        # not at the top, since it loads numpy, which help does without
        from mamba_speech.files import error_text

        text = plain(error_text(error) or "the memory does not suffice", backslashes=False)
        print(f"mamba-speech: error: {text}", file=sys.stderr)
        return 2


def _run_command(arguments):
    folder = getattr(arguments, "run_folder", None)
    if folder is not None:
        check_task(folder, arguments.command)
    _warn_of_synthetic_speech(arguments)
    if not getattr(arguments, "takes_many", False):
        return arguments.run(arguments)
    # not at the top, since it loads numpy, which help does without
    from mamba_speech.inputs import given_inputs

    with given_inputs(arguments):
        return arguments.run(arguments)


def _warn_of_synthetic_speech(arguments):
    """Say on stderr, once, that the model which the arguments name has heard no person."""
    folder = getattr(arguments, "run_folder", None)
    warning = "" if folder is None else synthetic.warning_for(folder)
    if warning:
        print(f"mamba-speech: {plain(warning, backslashes=False)}", file=sys.stderr, flush=True)


def make_parser(argv):
    """The parser, with the arguments of the command that `argv` names; of every command, if it is ``COMMANDS``.

    Example
    -------
    >>> make_parser(["--version"]).prog
    'mamba-speech'
    """
    parser = argparse.ArgumentParser(
        prog="mamba-speech",
        description="Use speech models that were trained with the recipes of this project.",
        epilog="mamba-speech COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=CommandParser
    )
    called = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        if name == called or argv is COMMANDS:
            task = importlib.import_module(module)
            task.add_arguments(command)
            command.epilog = f"{command.epilog} {ESCAPES}"
            command.set_defaults(run=task.run_command, refuse=command.error, command=name)
    return parser


if __name__ == "__main__":
    sys.exit(main())
