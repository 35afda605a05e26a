"""Options of a run that is started again: those that the model depends on stay, the others may change."""

import logging
from pathlib import Path

import yaml

from mamba_speech.run import OPTIONS_FILE
from training.option_values import shown_value
from training.resolved_yaml import plain_values

logger = logging.getLogger(__name__)

# of a start, not of the run
_OF_A_START = {
    "skip_train",
    "skip_prep",
    "verify",
    "max_unreadable",
    "max_skipped",
    "output_folder",
    "save_folder",
    "train_log",
}


def changed_options(values):
    """Options whose values differ from those that the run in the output folder was trained with.

    Arguments
    ---------
    values : dict
        Plain values of all options.

    Returns
    -------
    dict of str: (object, object)
        The value before and the value now, by name. Empty, if the folder holds no checkpoint, or no readable options.
    """
    folder, save_folder = Path(values["output_folder"]), values.get("save_folder")
    file = folder / OPTIONS_FILE
    if not save_folder or not file.is_file() or not any(Path(save_folder).glob("CKPT*/CKPT.yaml")):
        return {}
    try:
        before = plain_values(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        logger.warning("%s: cannot be compared with the options of now (%s)", file, error)
        return {}
    if not isinstance(before, dict):
        return {}
    both = before.keys() & values.keys() - _OF_A_START
    return {
        name: (before[name], values[name])
        for name in sorted(both)
        if not _same(before[name], values[name]) and not isinstance(values[name], dict)
    }


def _same(before, now):
    # a run that was started before its options had types may hold 0.02 in place of the text
    return before == now or (not isinstance(now, list) and str(before) == str(now))


def refuse_fixed(changes, model, folder):
    """Refuse other values of options that a trained model depends on.

    Arguments
    ---------
    changes : dict
        See :func:`changed_options`.
    model : type
        Declared options.
    folder : str or Path
        Output folder, for the error.

    Raises
    ------
    SystemExit
        With one sentence that names all of them.
    """
    fixed = [name for name in changes if model.is_fixed(name)]
    if fixed:
        was = " ".join(f"--{name} {shown_value(changes[name][0])}" for name in fixed)
        now = ", ".join(shown_value(changes[name][1]) for name in fixed)
        raise SystemExit(
            f"{folder}: its run was trained with {was}, and not {now}; give these options, or another --output_folder"
        )


def tell_changes(changes):
    """Log the options that a resumed run goes on with in place of others."""
    for name, (before, now) in changes.items():
        logger.info(
            "--%s is %s from here on; it was %s", name, shown_value(now), shown_value(before)
        )
