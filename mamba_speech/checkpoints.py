"""Reading checkpoints: which of a run's are whole, which count, and their weights, without executing code from them."""

import errno
import logging
import math
import os

import torch
from speechbrain.utils.checkpoints import (
    PARAMFILE_EXT,
    Checkpoint,
    Checkpointer,
    average_checkpoints,
)

from mamba_speech.checkpoint_files import (
    DamagedFile,
    check_file,
    find_damage,
    is_torn,
    list_folders,
    read_meta,
)

logger = logging.getLogger(__name__)


class CompleteCheckpoints(Checkpointer):
    """SpeechBrain's Checkpointer, blind to checkpoints that are not whole.

    Whoever uses a run writes nothing into it: a damaged checkpoint is left out with a warning.
    It takes the arguments of :class:`speechbrain.utils.checkpoints.Checkpointer`.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        # the fault of each checkpoint that is left out, by its folder
        self.damaged = {}

    def list_checkpoints(self):
        """All whole checkpoints, as far as their meta files and the sizes of their files tell."""
        found = []
        for folder in list_folders(self.checkpoints_dir):
            if folder in self.damaged or is_torn(folder):
                continue
            damage = find_damage(folder)
            if damage is not None:
                # another process may just have deleted it
                if folder.exists():
                    self.leave_out(folder, damage)
                continue
            files = {path.stem: path for path in sorted(folder.glob(f"*{PARAMFILE_EXT}"))}
            found.append(Checkpoint(folder, read_meta(folder), files))
        return found

    def leave_out(self, folder, reason):
        """Do without a damaged checkpoint, and say so."""
        self.damaged[folder] = reason
        logger.warning("%s is damaged, and left out: %s", folder, reason)

    def describe_damage(self):
        """The damaged checkpoints and their faults, for an error; empty without any."""
        return "; ".join(f"{folder.name}: {reason}" for folder, reason in self.damaged.items())


def load_whole(checkpointer, find, load):
    """Load checkpoints, and others in their place if one turns out to be damaged.

    Arguments
    ---------
    checkpointer : CompleteCheckpoints or None
        None, if there are no checkpoints.
    find : callable
        Function that chooses checkpoints; it raises an error if there is none.
    load : callable
        Function that loads what was chosen.

    Returns
    -------
    object
        What ``load`` gives.

    Raises
    ------
    DamagedFile
        If a file is damaged, and no whole checkpoint is left.
    """
    damage = None
    while True:
        try:
            checkpoints = find()
        except FileNotFoundError as error:
            if damage is not None:
                raise damage from error
            if checkpointer is not None and checkpointer.damaged:
                folder, reason = next(iter(checkpointer.damaged.items()))
                raise DamagedFile(folder, f"is damaged: {reason}") from error
            raise
        folders = [checkpoint.path for checkpoint in checkpoints]
        try:
            return load(checkpoints)
        except DamagedFile as error:
            if error.path.parent not in folders:
                raise
            damage = error
            checkpointer.leave_out(error.path.parent, f"{error.path.name} {error.reason}")
        except FileNotFoundError:
            # a training deletes old checkpoints while its run is used
            if all(folder.exists() for folder in folders):
                raise


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
        None, if the checkpoint was saved within an epoch, or by another recipe, or if it is no number.

    Example
    -------
    >>> selection_value({"epoch": 3, "si-snr": -9.5}, ("loss", "si-snr"))
    -9.5
    """
    keys = (selection_key,) if isinstance(selection_key, str) else selection_key
    value = next((meta[key] for key in keys if key in meta), None)
    return value if isinstance(value, int | float) else None


def at_least_one(count):
    """A number of checkpoints that makes sense, whatever an option says: a whole number from 1 on.

    Example
    -------
    >>> [at_least_one(count) for count in (3, 0, -2, 2.9, float("nan"), None)]
    [3, 1, 1, 2, 1, 1]
    """
    whole = isinstance(count, int | float) and math.isfinite(count)
    return max(1, int(count)) if whole else 1


def checkpoints_to_average(checkpointer, choice, count, selection_key):
    """The end-of-epoch checkpoints that a run is judged by, the foremost first.

    Arguments
    ---------
    checkpointer : speechbrain.utils.checkpoints.Checkpointer
    choice : str
        `best`, by the selection key, or `last`.
    count : int
        How many at most; less than one counts as one.
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
        max_num_checkpoints=at_least_one(count),
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
    DamagedFile
        If a file is damaged, or holds more than tensors.
    ValueError
        If a file differs in its names from the others.
    """
    if all("model" in checkpoint.paramfiles for checkpoint in checkpoints):
        return average_checkpoints(checkpoints, "model", parameter_loader=read_weights)
    return {
        f"{part}.{name}": weight
        for part, _ in model.named_children()
        for name, weight in average_checkpoints(
            checkpoints, part, parameter_loader=read_weights
        ).items()
    }


def read_weights(path, map_location="cpu"):
    """Read a file of a checkpoint, if it is as it was saved; see :func:`read_tensors`."""
    check_file(path)
    weights = read_tensors(path, map_location)
    if not isinstance(weights, dict):
        raise DamagedFile(path, f"holds no weights, but a {type(weights).__name__}")
    return weights


def read_tensors(path, map_location="cpu"):
    """Read a file that `torch.save` wrote, without executing code from it.

    Raises
    ------
    OSError
        If it is not there, may not be read, or does not fit into memory.
    DamagedFile
        If the file is damaged, or holds more than tensors and plain values.
    """
    # what is said of a file that cannot be opened holds the file's name
    with open(path, "rb"):
        pass
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        # torch looks for the end of a shortened file before its beginning: invalid argument
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        # torch's own allocators raise RuntimeError
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from error
        # torch lets through whatever zip files, pickles and storages raise: none of it says more, and some of it
        # advises to load with weights_only=False
        raise DamagedFile(
            path, "cannot be read as weights: the file is damaged, or holds more than tensors"
        ) from error
