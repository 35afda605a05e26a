"""``--resume PATH``, as other recipes have it: a run that starts from a checkpoint which the command line names.

A run here resumes by itself, from the newest checkpoint in its output folder. ``--resume`` lets a new run go on from a
checkpoint of another one: with its weights, its optimiser, its schedule and its random state. The checkpoint is copied
first, so the other run stays as it is.
"""

import glob
import logging
import os
import shutil
from pathlib import Path

import yaml

from mamba_speech.checkpoint_files import is_whole, read_meta
from mamba_speech.files import copy_file
from mamba_speech.run import OPTIONS_FILE
from training.resolved_yaml import plain_values
from training.resume import changed_options, refuse_fixed

logger = logging.getLogger(__name__)

_OPTION = "--resume"


def take_resume(arguments):
    """Take ``--resume PATH`` out of a command line.

    Arguments
    ---------
    arguments : list of str

    Returns
    -------
    (list of str, list of str)
        The other arguments, and the paths. A shell may have made several paths of one pattern. The list is empty
        without the option.

    Raises
    ------
    SystemExit
        If the option has no path.

    Example
    -------
    >>> take_resume(["a.yaml", "--resume", "run/save/CKPT+1", "--seed", "2"])
    (['a.yaml', '--seed', '2'], ['run/save/CKPT+1'])
    """
    others, paths, taking = [], [], False
    for part in arguments:
        if part.startswith("--"):
            name, equals, value = part.partition("=")
            taking = name == _OPTION
            if taking:
                paths += [value] if equals and value else []
                continue
        (paths if taking else others).append(part)
    if not paths and len(others) < len(arguments):
        raise SystemExit(
            f"{_OPTION} has no value: give a checkpoint of another run; a run resumes by itself if it is started again"
        )
    return others, paths


class StartingPoint:
    """The checkpoint that ``--resume`` names.

    Arguments
    ---------
    paths : list of str
        A checkpoint, a file in it, a folder of checkpoints, or a run, whose newest checkpoint counts. A pattern
        such as ``save/CKPT+*.ckpt`` counts as all that it matches, with or without its ending.

    Raises
    ------
    SystemExit
        With one sentence, if there is no whole checkpoint.
    """

    def __init__(self, paths):
        found = [one for path in paths for one in _checkpoints_at(path)]
        if not found:
            raise SystemExit(
                f"{_OPTION} {' '.join(paths)}: there is no whole checkpoint; give a folder CKPT+... in the save folder "
                "of a run, or the run's folder"
            )
        self.checkpoint = max(found, key=_time)
        self.save_folder = self.checkpoint.parent
        self.run = self.save_folder.parent

    def data_of(self, values):
        """The corpus that the run was trained on, as an option, unless the command line or the YAML names data.

        Arguments
        ---------
        values : dict
            Plain values of all options.

        Returns
        -------
        dict of str: str
        """
        if values.get("data_folder") or values.get("train_manifest"):
            return {}
        try:
            theirs = plain_values((self.run / OPTIONS_FILE).read_text(encoding="utf-8"))
            folder = theirs.get("data_folder")
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            return {}
        return (
            {"data_folder": folder} if isinstance(folder, str) and "data_folder" in values else {}
        )

    def check(self, values, model):
        """Refuse options that do not fit the checkpoint, before anything is written.

        Arguments
        ---------
        values : dict
            Plain values of all options.
        model : type
            Declared options; see :func:`training.options.find_options`.

        Raises
        ------
        SystemExit
            With one sentence, if the model depends on an option that differs, or the checkpoint is an older one of
            the run that is started.
        """
        own = Path(values["save_folder"]).resolve()
        if own == self.save_folder.resolve():
            newest = max(_checkpoints_at(own), key=_time)
            if newest.name != self.checkpoint.name:
                raise SystemExit(
                    f"{_OPTION} {self.checkpoint}: its run has gone on to {newest.name}; leave {_OPTION} out to go "
                    "on from there, or give another --output_folder to go on from the older one"
                )
        theirs = values | {"output_folder": str(self.run), "save_folder": str(self.save_folder)}
        refuse_fixed(changed_options(theirs), model, self.run)

    def take_up(self, save_folder):
        """Copy the checkpoint, and the tokenizer or labels beside it, unless the run has checkpoints already.

        Arguments
        ---------
        save_folder : str or Path
            Folder of the checkpoints of the run that is started.
        """
        own = Path(save_folder)
        if _checkpoints_at(own):
            if own.resolve() != self.save_folder.resolve():
                logger.warning("%s has checkpoints: the run goes on from its own newest one", own)
            return
        own.mkdir(parents=True, exist_ok=True)
        for file in self.save_folder.iterdir():
            if file.is_file() and not file.name.startswith(".") and not (own / file.name).exists():
                copy_file(file, own / file.name)
        # it counts as a checkpoint when it is whole
        part = own / f"partial_{self.checkpoint.name}"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self.checkpoint, part)
        os.replace(part, own / self.checkpoint.name)
        logger.info("the run starts from %s", self.checkpoint)


def _checkpoints_at(path):
    """Whole checkpoints that a path or a pattern means."""
    places = [Path(path)]
    if not places[0].exists():
        text = str(path)
        matches = glob.glob(text) or glob.glob(text.removesuffix(".ckpt"))
        places = [Path(one) for one in matches]
    found = []
    for place in places:
        if place.is_file() and place.parent.name.startswith("CKPT"):
            place = place.parent
        inside = [*place.glob("CKPT*"), *place.glob("save/CKPT*")]
        for folder in [place] if place.name.startswith("CKPT") else inside:
            if folder.is_dir() and is_whole(folder):
                found.append(folder.absolute())
    return found


def _time(folder):
    time = read_meta(folder).get("unixtime", 0)
    return time if isinstance(time, int | float) else 0
