"""Starting an experiment: the command line, the YAML, the output folder and the first lines of the log."""

import atexit
import contextlib
import logging
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.distributed import (
    ddp_broadcast,
    ddp_init_group,
    if_main_process,
    run_on_main,
)

from mamba_speech.files import write_text
from modules.fidelity import check_fidelity
from modules.ssm.scan.dispatch import check_environment
from training import run_lock
from training.option_schema import Options
from training.option_values import shown_value
from training.options import name_options, read_command_line
from training.process_group import choose_backend, end_with_launcher
from training.provenance import load_average, utc_now
from training.quiet import keep_details_of_libraries_out, make_log_file_robust
from training.resolved_yaml import build, resolve
from training.resume import changed_options, refuse_fixed
from training.resume_path import StartingPoint, take_resume
from training.script import tell

logger = logging.getLogger(__name__)


def load_experiment(arguments=None, options=Options, complete=None):
    """Read ``train.py hparams.yaml --key value ...``, create the output folder and start the log.

    Arguments
    ---------
    arguments : list of str, optional
        ``sys.argv[1:]`` by default.
    options : type
        Declared options of the script, a subclass of :class:`training.option_schema.Options`.
    complete : callable, optional
        Function that derives options from others before anything is built. It gets the plain values of all options
        and the names of the given ones. It returns a dict of values that replace the YAML's. They also go into the
        run's ``hyperparams.yaml``.

    Returns
    -------
    (dict, speechbrain.utils.run_opts.RunOptions)
        The loaded YAML and SpeechBrain's run options.

    Raises
    ------
    SystemExit
        With one sentence for each problem: if the command line is wrong (see
        :func:`training.options.read_command_line`), an object refuses its arguments, the device is not there, the
        output folder holds a run that was trained with other options which its model depends on, another process
        trains there, or it cannot be written.
    """
    # of the run's record
    start = {"started": utc_now(), "load_start": load_average()}
    arguments, paths = take_resume(sys.argv[1:] if arguments is None else arguments)
    line = read_command_line(arguments, options)
    hparams_file, run_opts, values = line.yaml, line.run_opts, line.values
    start_from = StartingPoint(paths) if paths else None
    derived = {} if start_from is None else start_from.data_of(values)
    if complete is not None:
        derived |= complete(values | derived, line.given)
    values = values | derived
    if start_from is not None:
        start_from.check(values, options)
    changes = changed_options(values)
    refuse_fixed(changes, options, values["output_folder"])
    check_device(run_opts, values)
    run_opts, joined = choose_backend(run_opts)
    end_with_launcher()
    # creates the process group under torchrun, before anything is written
    ddp_init_group(run_opts)
    atexit.register(_leave_process_group)
    made = _enter(values, run_opts)
    # resolving takes longer than most networks do to be built
    resolved = resolve(hparams_file, line.overrides | derived) if derived else line.resolved
    try:
        hparams = _build(hparams_file, resolved, line.given)
    except SystemExit:
        _leave(made)
        raise
    hparams["invocation"] = start | {"yaml": hparams_file, "overrides": line.given}
    hparams["changed_options"] = changes
    # the options are written when they are known to fit the checkpoints there: see RecipeBrain
    hparams["write_hyperparams"] = partial(
        _write_hyperparams, hparams_file, resolved, hparams["output_folder"]
    )
    _begin_log(hparams["output_folder"])
    keep_details_of_libraries_out()
    logger.info("fidelity: %s (%s)", hparams["fidelity"], hparams_file)
    if start_from is not None:
        run_on_main(start_from.take_up, args=(hparams["save_folder"],))
    if joined:
        logger.info("%s", joined)
    for alias, option in line.aliases.items():
        logger.info("--%s is --%s here", alias, option)
    return hparams, run_opts


def _enter(values, run_opts):
    """Check the output folder, and keep every other training out of it; a test alone may run beside a training.

    Gives the folders that this made, the innermost first.
    """
    folder, save_folder = Path(values["output_folder"]), Path(values.get("save_folder") or "")
    sentence, made = None, []
    for place in (folder, save_folder):
        if place.exists() and not place.is_dir():
            raise SystemExit(f"{place}: is a file, and no folder; give another --output_folder")
    if is_training(values, run_opts) and if_main_process():
        apart = values.get("save_folder") and not save_folder.is_relative_to(folder)
        try:
            for place in (folder, *([save_folder] if apart else ())):
                made += [one for one in (place, *place.parents) if not one.exists()]
                run_lock.hold(place)
        except run_lock.FolderInUse as error:
            sentence = str(error)
        except OSError as error:
            sentence = tell(error, folder)
    sentence = ddp_broadcast(sentence)
    if sentence:
        raise SystemExit(sentence)
    return made


def _leave(made):
    """Take back folders that hold nothing but a lock, after a start that was refused."""
    for folder in made:
        run_lock.release(folder)
        with contextlib.suppress(OSError):
            (folder / run_lock.LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()


def _begin_log(folder):
    """Make the output folder and its log, which a disk that is full does not stop."""
    try:
        sb.create_experiment_directory(experiment_directory=folder)
    except OSError as error:
        raise SystemExit(tell(error, folder)) from error
    except ValueError as error:
        # what logging makes of a file that cannot be opened
        if not isinstance(error.__cause__, OSError):
            raise
        raise SystemExit(tell(error.__cause__, folder)) from error
    make_log_file_robust()


def _build(file, resolved, given):
    """The objects of a resolved YAML; an error tells the options that were given."""
    try:
        hparams = build(resolved)
        check_fidelity(hparams["fidelity"])
        return hparams
    except OSError as error:
        # the folder of the checkpoints is made
        raise SystemExit(tell(error)) from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        ImportError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # an object refused its arguments, as a rule by a sentence that says which
        words = [str(one) for one in error.args if str(one)] or [type(error).__name__]
        message = name_options(" ".join(" ".join(words).split()), file)
        if isinstance(error, MemoryError) or "allocate memory" in message:
            message = "there is not enough memory for networks of these sizes"
        unnamed = {name: text for name, text in given.items() if name not in message}
        if len(unnamed) == len(given) > 0:
            told = " ".join(f"--{name} {shown_value(text)}" for name, text in unnamed.items())
            message = f"{message} (given: {told})"
        logger.debug("while the objects were built", exc_info=True)
        raise SystemExit(f"{file}: {message}") from error


def check_device(run_opts, values):
    """Refuse a device that is not there, and a precision or a backend of the scan that it does not have.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
    values : dict
        Plain values of all options.

    Raises
    ------
    SystemExit
        With one sentence.
    """
    device = run_opts.device
    kind, _, number = (device or "").partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(number or 0) >= count:
            there = f"there are {count} of them" if count else "there is no such device"
            raise SystemExit(
                f"--device {device}: {there}; give --device cpu, or leave the option out"
            )
    elif kind == "mps" and not torch.backends.mps.is_available():
        raise SystemExit("--device mps: there is no such device; give --device cpu")
    elif kind not in ("", "cpu", "mps") and not getattr(torch, kind).is_available():
        raise SystemExit(f"--device {device}: there is no such device; give --device cpu")
    on_cpu = kind == "cpu" or not (
        kind or torch.cuda.is_available() or torch.backends.mps.is_available()
    )
    for name in ("precision", "eval_precision"):
        given = name in run_opts.overridden_args
        if on_cpu and (run_opts[name] if given else values.get(name)) == "fp16":
            raise SystemExit(f"--{name} fp16 needs a GPU; give bf16 or fp32")
    try:
        on_card = device or ("cuda" if torch.cuda.is_available() else "mps")
        check_environment("cpu" if on_cpu else on_card)
    except RuntimeError as error:
        raise SystemExit(str(error)) from None


def _leave_process_group():
    """End the threads of a process group, which can abort a process that ends before them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _write_hyperparams(hparams_file, resolved, folder):
    """The YAML with its references resolved and the overrides in place, as SpeechBrain writes it."""
    write_text(Path(folder) / "hyperparams.yaml", f"# made from {hparams_file}\n{resolved}")


def is_training(hparams, run_opts):
    """Whether the script trains before it tests: neither ``--skip_train`` nor ``--test_only`` was given.

    Arguments
    ---------
    hparams : dict
        With ``skip_train``, unless the script has no such option.
    run_opts : speechbrain.utils.run_opts.RunOptions
    """
    return not (hparams.get("skip_train") or run_opts.test_only)


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
