"""Reading what a training run left in its output folder: the options, the networks, their weights.

A run may come from anyone and lie anywhere: nothing in it is executed, nothing is written into it,
and the paths in its hyperparams.yaml are taken as they stand relative to its output folder.
"""

import errno
import os
from pathlib import Path

import torch
import yaml
from speechbrain.utils.checkpoints import METAFNAME, Checkpointer, average_checkpoints

from mamba_speech.network_yaml import read_keys
from mamba_speech.option_types import check_types
from mamba_speech.plain_yaml import errors_name

OPTIONS_FILE = "hyperparams.yaml"
# What loading needs of every run, whatever its task.
_ALWAYS = ("output_folder", "save_folder", "avg_checkpoints", "checkpoint_choice", "model")


class CompleteCheckpoints(Checkpointer):
    """SpeechBrain's Checkpointer, blind to checkpoints whose saving or deleting was cut short.

    Arguments are those of :class:`speechbrain.utils.checkpoints.Checkpointer`.
    """

    def _list_checkpoint_dirs(self):
        return [folder for folder in super()._list_checkpoint_dirs() if is_complete(folder)]


def is_complete(folder):
    """Whether a checkpoint's folder has its meta file, and every file that the meta file names.

    Raises
    ------
    ValueError
        If the meta file is damaged. Incomplete folders are removed when training starts; weights beside a damaged
        file may be sound.
    """
    meta = read_meta(folder)
    if meta is None:
        return False
    files = meta.get("files") or ()
    return isinstance(files, list | tuple) and all(
        isinstance(name, str) and (folder / name).exists() for name in files
    )


def read_meta(folder):
    """What stands in a checkpoint's meta file.

    Returns
    -------
    meta : dict or None
        None, if there is no meta file, or nothing is in it.

    Raises
    ------
    ValueError
        If it is no YAML; the message names the file.
    """
    file = Path(folder) / METAFNAME
    if not file.is_file():
        return None
    with errors_name(file):
        meta = yaml.safe_load(file.read_text(encoding="utf-8"))
    return meta if isinstance(meta, dict) else None


def selection_value(meta, selection_key):
    """The validation statistic by which a checkpoint is compared with others of its run.

    Arguments
    ---------
    meta : dict
        Of the checkpoint.
    selection_key : str or tuple of str
        The statistic's name; of several, under which versions of a recipe saved it, the first that is there counts.

    Returns
    -------
    value : float or None
        None, if the checkpoint was saved within an epoch, or by another recipe.

    Example
    -------
    >>> selection_value({"epoch": 3, "si-snr": -9.5}, ("loss", "si-snr"))
    -9.5
    """
    keys = (selection_key,) if isinstance(selection_key, str) else selection_key
    return next((meta[key] for key in keys if key in meta), None)


def checkpoints_to_average(checkpointer, choice, count, selection_key):
    """The end-of-epoch checkpoints that a run is judged by, the foremost first.

    Arguments
    ---------
    checkpointer : speechbrain.utils.checkpoints.Checkpointer
    choice : str
        `best`, by the selection key, or `last`.
    count : int
        How many at most.
    selection_key : str or tuple of str
        The validation statistic by which checkpoints are compared, lower being better; see
        :func:`selection_value`. Those that lack it were saved within an epoch and do not count.

    Returns
    -------
    checkpoints : list of speechbrain.utils.checkpoints.Checkpoint
        None, if no epoch has ended yet.
    """

    def value(checkpoint):
        return selection_value(checkpoint.meta, selection_key)

    return checkpointer.find_checkpoints(
        importance_key=(lambda checkpoint: -value(checkpoint)) if choice == "best" else None,
        max_num_checkpoints=count,
        ckpt_predicate=lambda checkpoint: value(checkpoint) is not None,
    )


def average_model(checkpoints, model):
    """The mean of a model's weights in several checkpoints, as a state dict on the CPU.

    The weights are in one file named `model`, or, as the published separation checkpoints are, in one file
    for each child of the model, by the child's name.

    Arguments
    ---------
    checkpoints : list of speechbrain.utils.checkpoints.Checkpoint
    model : torch.nn.Module
        Whose children are asked for their names.

    Returns
    -------
    weights : dict of str to torch.Tensor

    Raises
    ------
    KeyError
        If a checkpoint has neither.
    ValueError
        If a file is damaged, holds more than tensors, or differs in its names from the others.
    """
    if all("model" in checkpoint.paramfiles for checkpoint in checkpoints):
        return average_checkpoints(checkpoints, "model", parameter_loader=read_tensors)
    return {
        f"{part}.{name}": weight
        for part, _ in model.named_children()
        for name, weight in average_checkpoints(
            checkpoints, part, parameter_loader=read_tensors
        ).items()
    }


def read_tensors(path, map_location="cpu"):
    """Read a file that `torch.save` wrote, without executing code from it.

    Raises
    ------
    OSError
        If it is not there, may not be read, or does not fit into memory.
    ValueError
        If the file is damaged, or holds more than tensors and plain values.
    """
    # what is said of a file that cannot be opened holds the file's name
    with open(path, "rb"):
        pass
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        # torch's own allocators raise RuntimeError
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from error
        # torch lets through whatever zip files, pickles and storages raise: none of it says more, and some of it
        # advises to load with weights_only=False
        raise ValueError(
            f"{path}: cannot be read as weights: the file is damaged, or holds more than tensors"
        ) from error


def load_run(folder, wanted, optional=(), selection_key="WER"):
    """Build a trained run's networks and give them its weights.

    The weights are those that the run's own test used: the average of its last or best checkpoints.
    Other keys of the YAML (loggers, checkpointer, augmentation, seed) are not even looked at.

    Arguments
    ---------
    folder : str or Path
        The run's output folder, wherever it lies now; it may be read-only.
    wanted : list of str
        Top-level keys of the YAML that must be there; `model` always is one.
    optional : list of str
        Keys that are taken if they are there.
    selection_key : str or tuple of str
        See :func:`checkpoints_to_average`. Of several, the first that the run's recipe saved.

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
    folder = Path(folder)
    options = read_options(folder, [*_ALWAYS, *wanted], optional)
    check_types(options, folder / OPTIONS_FILE)
    checkpoints = _find_checkpoints(folder, options, selection_key)
    load_weights(folder, options, checkpoints)
    return options


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
    folder = Path(folder)
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
    for key in options:
        if key.endswith("_file") or key == "save_folder":
            options[key] = moved(options[key], options["output_folder"], folder)
    return options


def choose_device(name=None):
    """A device to run on: CUDA if there is any, else the CPU, where none is named.

    Arguments
    ---------
    name : str or torch.device, optional

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If there is no such kind of device.
    RuntimeError
        If this machine has none.

    Example
    -------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is unknown: use cpu, cuda, cuda:0 or mps") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"device {name!r} cannot be used here: {reason}") from error
    return device


def moved(path, old_root, new_root):
    """Where a file of a run lies now; one that was never in its output folder stays where it is."""
    try:
        return new_root / Path(path).relative_to(old_root)
    except ValueError:
        return Path(path)


def _find_checkpoints(folder, options, selection_key):
    save_folder, choice = options["save_folder"], options["checkpoint_choice"]
    keys = (selection_key,) if isinstance(selection_key, str) else selection_key
    if save_folder.is_dir():
        checkpointer = CompleteCheckpoints(save_folder)
        checkpoints = checkpoints_to_average(checkpointer, choice, options["avg_checkpoints"], keys)
        if checkpoints:
            return checkpoints
        if any("epoch" in checkpoint.meta for checkpoint in checkpointer.list_checkpoints()):
            raise ValueError(
                f"{folder}: its checkpoints have no {' or '.join(keys)}; it is a run of another task"
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
            options["normalize"]._load_statistics_dict(read_tensors(files["normalizer"]))
    except (KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"{folder}: its checkpoint {checkpoints[0].path.name} is of another model than its "
            f"{OPTIONS_FILE} describes ({reason})"
        ) from error
    for value in options.values():
        if isinstance(value, torch.nn.Module):
            value.eval().requires_grad_(False)
