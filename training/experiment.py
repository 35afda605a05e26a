"""Starting an experiment: the command line, the YAML, the output folder and the first lines of the log."""

import atexit
import logging
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

import ruamel.yaml
import speechbrain as sb
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import resolve_references
from speechbrain.utils.distributed import ddp_init_group

from mamba_speech.files import write_text
from modules.fidelity import check_fidelity
from training.options import name_options, read_command_line
from training.provenance import load_average, utc_now
from training.quiet import keep_details_of_libraries_out

logger = logging.getLogger(__name__)


def load_experiment(arguments=None, complete=None):
    """Read ``train.py hparams.yaml --key value ...``, create the output folder and start the log.

    Arguments
    ---------
    arguments : list of str, optional
        ``sys.argv[1:]`` by default.
    complete : callable, optional
        Function that derives options from others before anything is built. It gets the plain values of all options
        and the names of the given ones, and returns a dict of values that replace those of the YAML. They also go
        into the run's ``hyperparams.yaml``.

    Returns
    -------
    (dict, speechbrain.utils.run_opts.RunOptions)
        The loaded YAML and SpeechBrain's run options.

    Raises
    ------
    SystemExit
        With one message, if the command line is wrong (see :func:`training.options.read_command_line`), or
        ``fidelity`` is neither of its two values.
    """
    # of the run's record
    start = {"started": utc_now(), "load_start": load_average()}
    line = read_command_line(sys.argv[1:] if arguments is None else arguments)
    hparams_file, run_opts = line.yaml, line.run_opts
    # creates the process group under torchrun, before anything is written
    ddp_init_group(run_opts)
    atexit.register(_leave_process_group)
    try:
        overrides = _complete(line, complete)
        with open(hparams_file, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, overrides)
        check_fidelity(hparams["fidelity"])
    except ValueError as error:
        # an object refused its arguments: its own sentence says which
        message = name_options(str(error.args[0]), hparams_file)
        raise SystemExit(f"{hparams_file}: {message}") from error
    hparams["invocation"] = start | {"yaml": hparams_file, "overrides": line.given}
    # the options are written when they are known to fit the checkpoints there: see RecipeBrain
    hparams["write_hyperparams"] = partial(
        _write_hyperparams, hparams_file, overrides, hparams["output_folder"]
    )
    sb.create_experiment_directory(experiment_directory=hparams["output_folder"])
    keep_details_of_libraries_out()
    logger.info("fidelity: %s (%s)", hparams["fidelity"], hparams_file)
    for alias, option in line.aliases.items():
        logger.info("--%s is --%s here", alias, option)
    return hparams, run_opts


def _complete(line, complete):
    """The overrides of a command line, with those that ``complete`` derives from them."""
    if complete is None:
        return line.overrides
    with open(line.yaml, encoding="utf-8") as file:
        resolved = resolve_references(file, line.overrides).getvalue()
    # as HyperPyYAML reads them
    overrides = ruamel.yaml.YAML().load(line.overrides) or {}
    overrides.update(complete(yaml.load(resolved, Loader=_PlainValues), line.given))
    return overrides


class _PlainValues(yaml.SafeLoader):
    """YAML's plain values; objects are None."""


_PlainValues.add_multi_constructor("!", lambda loader, tag, node: None)


def _leave_process_group():
    """End the threads of a process group, which can abort a process that ends before them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _write_hyperparams(hparams_file, overrides, folder):
    """The YAML with its references resolved and the overrides in place, as SpeechBrain writes it."""
    with open(hparams_file, encoding="utf-8") as file:
        resolved = resolve_references(file, overrides).getvalue()
    write_text(Path(folder) / "hyperparams.yaml", f"# made from {hparams_file}\n{resolved}")


def is_training(hparams, run_opts):
    """Whether the script trains before it tests: neither ``--skip_train`` nor ``--test_only`` was given.

    Arguments
    ---------
    hparams : dict
        With ``skip_train``.
    run_opts : speechbrain.utils.run_opts.RunOptions
    """
    return not (hparams["skip_train"] or run_opts.test_only)


def suggest(*words):
    """End a training with the command that uses what it made, ready to paste where it was started.

    Arguments
    ---------
    words : str or Path
        Of the command: the program, which is ``mamba-speech`` or ``python``, and its arguments. A Path is given as
        it is typed here.
    """
    program, *arguments = words
    arguments = [shown(word) if isinstance(word, Path) else str(word) for word in arguments]
    logger.info(
        "what to do with it now, for example:\n%s", shlex.join([*_runs(program), *arguments])
    )


def shown(path):
    """A path as one types it in the present folder: relative where it lies below, never like an option.

    Example
    -------
    >>> shown(Path.cwd() / "results" / "1"), shown("-1"), shown("/")
    ('results/1', './-1', '/')
    """
    path, here = Path(os.path.abspath(path)), Path.cwd()
    if not path.is_relative_to(here):
        return str(path)
    typed = str(path.relative_to(here))
    return f"./{typed}" if typed.startswith("-") else typed


def _runs(program):
    """How to start a program of the environment that runs this, which the shell may not have activated."""
    here = Path(sys.executable).parent
    found = shutil.which(program)
    if found is not None and Path(found).parent == here:
        return [program]
    return [sys.executable] if program == "python" else [sys.executable, "-m", "mamba_speech.cli"]


def count_parameters(module):
    """Trainable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def describe_device(device):
    """The name of a GPU, or the type of another device."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
