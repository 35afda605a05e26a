"""Reading checkpoints: which of a run's are whole, which count, and their weights, without executing code from them."""

import errno
import os
from pathlib import Path

import torch
import yaml
from speechbrain.utils.checkpoints import METAFNAME, Checkpointer, average_checkpoints

from mamba_speech.plain_yaml import errors_name


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
