"""The command `mamba-speech completion`: a script by which a shell completes commands, options and paths."""

import argparse

import shtab

from mamba_speech.arguments import STANDARD_INPUT

SHELLS = ("bash", "zsh")
_FILES = {"inputs", "pairs", "database", "evaluate", "list"}
_FOLDERS = {"run_folder", "output_folder", "lm", "folder"}


def add_arguments(parser):
    """Give the parser of `mamba-speech completion` its arguments."""
    parser.add_argument("shell", choices=SHELLS, help="shell that is to complete")
    parser.epilog = (
        "Bash: mamba-speech completion bash > ~/.local/share/bash-completion/completions/mamba-speech. Zsh: write it "
        "as _mamba-speech into a folder of $fpath. Print it anew after an update."
    )


def run_command(arguments):
    """Run `mamba-speech completion`; returns the exit status."""
    print(completion_script(arguments.shell))
    return 0


def completion_script(shell):
    """The script for a shell.

    Arguments
    ---------
    shell : str
        One of ``SHELLS``.

    Returns
    -------
    str
    """
    # not at the top, since the command line imports this module
    from mamba_speech.cli import COMMANDS, make_parser

    parser = make_parser(COMMANDS)
    for action in _actions(parser):
        if action.dest in _FOLDERS:
            action.complete = shtab.DIRECTORY
        elif action.dest in _FILES or action.metavar in ("FILE", "INPUT", STANDARD_INPUT):
            action.complete = shtab.FILE
    return shtab.complete(parser, shell)


def _actions(parser):
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _actions(one)
