"""Testing a trained keyword model on a folder of other clips than it was trained on."""

import os
from pathlib import Path

from data_prep.keywords.other_clips import prepare_other_clips
from data_prep.keywords.words import find_root
from data_prep.speechcommands_prepare import RECORD
from mamba_speech.files import read_json
from training.preparation import prepare_once

PASSED_ON = (
    "data_folder split unknown_percentage silence_percentage clip_seconds other_speech other_speech_percentage"
    " background verify"
)


def is_other_data(hparams):
    """Whether ``data_folder`` is another than the one whose manifests stand in the output folder.

    Arguments
    ---------
    hparams : dict

    Returns
    -------
    bool

    Raises
    ------
    SystemExit
        If the folder cannot be used.
    """
    if hparams["test_speaker"] or hparams["skip_prep"]:
        return False
    try:
        root = find_root(hparams["data_folder"], _version(hparams))
    except OSError as error:
        raise SystemExit(str(error)) from error
    try:
        own = read_json(Path(hparams["output_folder"]) / RECORD)["folder"]
        return os.path.realpath(root) != os.path.realpath(own)
    except (OSError, ValueError, KeyError, TypeError):
        # no record, or a damaged one, names no folder
        return True


def prepare_other_data(hparams, labels):
    """Write the manifest of a test on other clips into a folder of its own; the run's manifests stay.

    Arguments
    ---------
    hparams : dict
    labels : list of str
        The classes of the model.

    Returns
    -------
    dict
        See :func:`data_prep.keywords.other_clips.prepare_other_clips`.

    Raises
    ------
    SystemExit
        With one message, if the folder has no clips for a test.
    """
    folder = Path(hparams["output_folder"])
    options = {name: hparams[name] for name in PASSED_ON.split()}
    options |= {"save_folder": folder / "other_clips", "labels": labels}
    options |= {"version": _version(hparams), "seed": hparams["data_seed"]}
    options["trained"] = [folder / f"{name}.csv" for name in ("train", "valid")]
    try:
        return prepare_once(prepare_other_clips, options, ("test", "labels"))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _version(hparams):
    return str(hparams["version"]).removeprefix("v")
