"""Reading what a training run left in its output folder: the options, the networks, their weights.

A run may come from anyone and lie anywhere: nothing in it is executed, nothing is written into it,
and the paths in its hyperparams.yaml are taken as they stand relative to its output folder.
"""

import os
from pathlib import Path

import torch

from mamba_speech.checkpoints import (
    CompleteCheckpoints,
    average_model,
    checkpoints_to_average,
    load_whole,
    read_weights,
)
from mamba_speech.exported import INTERFACE_PARTS, WEIGHTS_FILE, is_exported
from mamba_speech.exported import load_weights as load_exported_weights
from mamba_speech.network_yaml import ALLOWED, read_keys
from mamba_speech.option_types import OF_EVERY_RUN, check_types
from mamba_speech.plain_yaml import read_tags, shorten

OPTIONS_FILE = "hyperparams.yaml"
# What loading needs of every run, whatever its task.
_ALWAYS = ("output_folder", "save_folder", "avg_checkpoints", "checkpoint_choice", "model")
# keys of an exported model that name something in its folder
_BESIDE = ("ngram_lm",)


def load_run(folder, wanted, optional=(), selection_key="WER"):
    """Build a trained run's networks and give them its weights.

    The weights are those that the run's own test used: the average of its last or best checkpoints.
    Other keys of the YAML (loggers, checkpointer, augmentation, seed) are not even looked at.

    Arguments
    ---------
    folder : str or Path
        The run's output folder, wherever it lies now, or a folder that `mamba-speech export` wrote. It may be
        read-only.
    wanted : list of str
        Top-level keys of the YAML that must be there; `model` always is one.
    optional : list of str
        Keys that are taken if they are there.
    selection_key : str or tuple of str
        See :func:`mamba_speech.checkpoints.checkpoints_to_average`. Of several, the first that the run's recipe saved.

    Returns
    -------
    options : dict
        The values of those keys: plain ones, and networks on the CPU, in evaluation mode. Keys that
        end in `_file` are paths in the folder as it lies now.

    Raises
    ------
    FileNotFoundError
        If the folder is no run, or has no checkpoint of a whole epoch yet.
    OSError
        If a file may not be read, or does not fit into memory.
    ValueError
        If the YAML cannot be read, lacks a key, or names anything but networks of this project,
        SpeechBrain or torch; if a checkpoint is damaged, of another model than the YAML's, or was
        not compared by the selection key.
    """
    folder = given_folder(folder)
    if is_exported(folder / OPTIONS_FILE):
        return _load_exported(folder, wanted, optional)
    options = read_options(folder, [*_ALWAYS, *wanted], optional)
    check_types(options, folder / OPTIONS_FILE, OF_EVERY_RUN)
    checkpointer = open_checkpoints(options["save_folder"])
    load_whole(
        checkpointer,
        lambda: _find_checkpoints(folder, options, selection_key, checkpointer),
        lambda checkpoints: load_weights(folder, options, checkpoints),
    )
    return options


def _load_exported(folder, wanted, optional):
    """What :func:`load_run` gives of a folder that was exported."""
    _check_tags(folder / OPTIONS_FILE)
    options = read_options(folder, ["model", *wanted], optional)
    check_types(options, folder / OPTIONS_FILE, OF_EVERY_RUN)
    names = ("model", "normalize", "lm")
    networks = {name: options[name] for name in names if name in options}
    load_exported_weights(folder / WEIGHTS_FILE, networks)
    _freeze(options)
    for key in _BESIDE:
        if isinstance(options.get(key), str):
            options[key] = str(folder / options[key])
    return options


def _check_tags(file):
    """Refuse an exported YAML that names what no export writes: SpeechBrain would call it, even where it is not read.

    Raises
    ------
    ValueError
    """
    for tag in sorted(read_tags(file)):
        kind, _, target = tag.partition(":")
        named = kind in ("!new", "!name") and (
            target.startswith(ALLOWED) or target in INTERFACE_PARTS
        )
        if not named and tag != "!ref":
            raise ValueError(
                f"{file}: {shorten(tag)} is refused, since no export writes it: the folder was changed, so get it "
                "again from somebody you trust"
            )


def open_checkpoints(save_folder):
    """The checkpoints of a run; None, if the folder does not exist, which is then not made."""
    return CompleteCheckpoints(save_folder) if Path(save_folder).is_dir() else None


def read_options(folder, wanted, optional=()):
    """Some options of a run as they stand, networks without their trained weights.

    Arguments
    ---------
    folder, wanted, optional
        See :func:`load_run`; `model` only if it is asked for.

    Returns
    -------
    options : dict

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is no run, or its YAML not usable; see :func:`load_run`.
    """
    folder = given_folder(folder)
    file = folder / OPTIONS_FILE
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the output folder of a run")
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder}: is not the output folder of a run, since it holds no {OPTIONS_FILE}; give "
            "the folder that training was given as --output_folder"
        )
    wanted = ["output_folder", *wanted]
    options = read_keys(file, {*wanted, *optional})
    missing = sorted(set(wanted) - set(options))
    if missing:
        raise ValueError(f"{file}: lacks {', '.join(missing)}; it is a run of another task")
    # the output folder first: the others are moved out of it
    for key in sorted(options, key=lambda key: key != "output_folder"):
        if key.endswith("_file") or key in ("output_folder", "save_folder"):
            if not isinstance(options[key], str):
                raise ValueError(f"{file}: {key} must be a path; got {shorten(options[key])}")
            if key != "output_folder":
                options[key] = moved(options[key], options["output_folder"], folder)
    network = isinstance(options.get("model"), torch.nn.Module)
    if "model" in options and not network:
        raise ValueError(f"{file}: model must be a network; got {shorten(options['model'])}")
    return options


def given_folder(folder):
    """The path of a folder that a caller names; an empty path would be the folder that the process is in.

    Raises
    ------
    FileNotFoundError
        If it is empty.
    """
    if not os.fspath(folder):
        raise FileNotFoundError("an empty path is no folder; give the output folder of a run")
    return Path(folder)


def moved(path, old_root, new_root):
    """Where a file of a run lies now; one that was never in its output folder stays where it is."""
    try:
        return new_root / Path(path).relative_to(old_root)
    except ValueError:
        return Path(path)


def _find_checkpoints(folder, options, selection_key, checkpointer):
    save_folder, choice = options["save_folder"], options["checkpoint_choice"]
    keys = (selection_key,) if isinstance(selection_key, str) else selection_key
    if checkpointer is not None:
        checkpoints = checkpoints_to_average(checkpointer, choice, options["avg_checkpoints"], keys)
        if checkpoints:
            return checkpoints
        if any("epoch" in checkpoint.meta for checkpoint in checkpointer.list_checkpoints()):
            raise ValueError(
                f"{folder}: is a run of another task, since its checkpoints record no {' or '.join(keys)}"
            )
    raise FileNotFoundError(
        f"{folder}: holds no checkpoint of a whole epoch yet (looked in {save_folder}); let the "
        "training finish an epoch first"
    )


def load_weights(folder, options, checkpoints):
    """Give the networks among a run's options its weights, and put them into evaluation mode.

    Arguments
    ---------
    folder : Path
        Named in errors.
    options : dict
        `model` gets the average of the checkpoints, `normalize`, if it is there, the foremost one's statistics.
    checkpoints : list of speechbrain.utils.checkpoints.Checkpoint

    Raises
    ------
    ValueError
        If a checkpoint is damaged, or of another model.
    """
    files = checkpoints[0].paramfiles
    try:
        options["model"].load_state_dict(average_model(checkpoints, options["model"]), strict=True)
        if "normalize" in options:
            options["normalize"]._load_statistics_dict(read_weights(files["normalizer"]))
    except (KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"{folder}: its checkpoint {checkpoints[0].path.name} is of another model than its "
            f"{OPTIONS_FILE} describes ({reason})"
        ) from error
    _freeze(options)


def _freeze(options):
    for value in options.values():
        if isinstance(value, torch.nn.Module):
            value.eval().requires_grad_(False)
