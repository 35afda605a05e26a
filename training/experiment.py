"""Starting an experiment: the command line, the YAML, the output folder and the first lines of the log."""

import dataclasses
import difflib
import logging
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import resolve_references
from speechbrain.utils.distributed import ddp_init_group

from modules.fidelity import check_fidelity
from training.machine import load_average, utc_now

logger = logging.getLogger(__name__)

# whose details log.txt holds
OWN_LOGGERS = ("__main__", "data_prep", "mamba_speech", "modules", "training", "speechbrain")


def load_experiment(arguments=None):
    """Read ``train.py hparams.yaml --key value ...``, create the output folder and start the log.

    Arguments
    ---------
    arguments : list of str, optional
        ``sys.argv[1:]`` by default.

    Returns
    -------
    (dict, speechbrain.utils.run_opts.RunOptions)
        The loaded YAML and SpeechBrain's run options.

    Raises
    ------
    SystemExit
        With one message, if the YAML file does not exist, an option is unknown, a value that must be given is
        missing, or ``fidelity`` is neither of its two values.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # of the run's record
    start = {"started": utc_now(), "load_start": load_average()}
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    if not Path(hparams_file).is_file():
        raise SystemExit(
            f"{hparams_file}: no such file; the first argument is a YAML file, such as one in hparams/"
        )
    _check_overrides(hparams_file, overrides)
    if run_opts.optimizer_step_limit is not None:
        # SpeechBrain 1.1 hands this one over as text
        run_opts = dataclasses.replace(
            run_opts, optimizer_step_limit=int(run_opts.optimizer_step_limit)
        )
    # creates the process group under torchrun, before anything is written
    ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        try:
            hparams = load_hyperpyyaml(file, overrides)
            check_fidelity(hparams["fidelity"])
        except ValueError as error:
            # an object refused its arguments: its own sentence says which
            raise SystemExit(f"{hparams_file}: {error.args[0]}") from error
    given = given_options([one for one in arguments if one != hparams_file])
    hparams["invocation"] = start | {"yaml": hparams_file, "overrides": given}
    # the options are written when they are known to fit the checkpoints there: see RecipeBrain
    hparams["write_hyperparams"] = partial(
        _write_hyperparams, hparams_file, overrides, hparams["output_folder"]
    )
    sb.create_experiment_directory(experiment_directory=hparams["output_folder"])
    _quieten_libraries()
    logger.info("fidelity: %s (%s)", hparams["fidelity"], hparams_file)
    return hparams, run_opts


def given_options(arguments):
    """The options of a command line as text by name; a switch is ``True``.

    Arguments
    ---------
    arguments : list of str
        Without the script and the YAML.

    Returns
    -------
    dict of str: str

    Example
    -------
    >>> given_options(["--seed", "3", "--test_only", "--lr=0.1"])
    {'seed': '3', 'test_only': 'True', 'lr': '0.1'}
    """
    options, name = {}, None
    for part in arguments:
        if part.startswith("--"):
            name, given, value = part[2:].partition("=")
            options[name] = [value] if given else []
        elif name is not None:
            options[name].append(part)
    return {name: " ".join(values) or "True" for name, values in options.items()}


def _quieten_libraries():
    """Keep other libraries' details out of log.txt, for which SpeechBrain lets all of every library's through."""
    # every logger without a level of its own has the root's
    logging.getLogger().setLevel(logging.INFO)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)


def _write_hyperparams(hparams_file, overrides, folder):
    """The YAML with its references resolved and the overrides in place, as SpeechBrain writes it."""
    with open(hparams_file, encoding="utf-8") as file:
        resolved = resolve_references(file, overrides).getvalue()
    unfinished = Path(folder) / "hyperparams.yaml.partial"
    unfinished.write_text(f"# made from {hparams_file}\n{resolved}", encoding="utf-8")
    os.replace(unfinished, Path(folder) / "hyperparams.yaml")


def _check_overrides(hparams_file, overrides):
    """Stop on an option that the YAML does not have, and on a value that it wants and did not get."""
    try:
        node = yaml.compose(overrides, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SystemExit(
            "the options on the command line cannot be read: write --key value, lists as --key '[a, b]', and "
            "switches such as --test_only without a value "
            f"({str(error).splitlines()[-1].strip()} in: {overrides.strip()})"
        ) from error
    given = [key.value for key, _ in node.value] if node is not None else []
    with open(hparams_file, encoding="utf-8") as file:
        known = _top_level_keys(file)
    for key in given:
        if given.count(key) > 1:
            raise SystemExit(f"--{key} is given twice")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean --{close[0]}?" if close else ""
            raise SystemExit(
                f"--{key}: {hparams_file} has no such option{hint} (its top-level keys are the options)"
            )
    with open(hparams_file, encoding="utf-8") as file:
        try:
            resolve_references(file, overrides)
        except ValueError as error:
            if "PLACEHOLDER" in str(error):
                raise SystemExit(f"{hparams_file}: {_missing(known, given)}") from error
            raise


def _missing(known, given):
    missing = [key for key, value in known.items() if value == "!PLACEHOLDER" and key not in given]
    return "give a value for " + ", ".join(f"--{key}" for key in missing)


def _top_level_keys(file):
    """Top-level keys of a HyperPyYAML file; the value is ``!PLACEHOLDER`` where one must be given."""
    node = yaml.compose(file, Loader=yaml.SafeLoader)
    return {
        key.value: value.tag if value.tag == "!PLACEHOLDER" else "" for key, value in node.value
    }


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
    """The name of the device that a run used, for its results."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
