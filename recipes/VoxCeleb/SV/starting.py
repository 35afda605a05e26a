"""How a speaker run starts: options that follow from others, and the weights that it starts from.

A network that begins as a pretrained one is described by that one's configuration. The configuration goes into the
run's ``hyperparams.yaml``, so that the run loads without the pretrained model.
"""

import logging
from pathlib import Path

import torch

from mamba_speech.checkpoints import (
    average_model,
    checkpoints_to_average,
    load_whole,
    read_weights,
)
from mamba_speech.files import read_json
from mamba_speech.run import OPTIONS_FILE, open_checkpoints, read_options
from modules.speaker.self_supervised import check_shape, load_pretrained, read_config
from training.warm_start import load_fitting, report

logger = logging.getLogger(__name__)

# validation statistics by which this recipe compares checkpoints
SELECTION_KEYS = ("EER", "error")
# options of the second stage of training, by the option of the first that each replaces
SECOND_STAGE = {
    "fine_tune_epochs": "number_of_epochs",
    "fine_tune_lr": "lr",
    "fine_tune_margin": "margin",
    "fine_tune_crop_seconds": "crop_seconds",
    "fine_tune_crop_seconds_max": "crop_seconds_max",
}


def complete_options(options, given):
    """Options that follow from others, for :func:`training.experiment.load_experiment`.

    Arguments
    ---------
    options : dict
        Plain values of all options.
    given : dict
        Options of the command line.

    Returns
    -------
    dict
        Options to replace.

    Raises
    ------
    SystemExit
        If a pretrained model, or the run to fine-tune, cannot be read.
    """
    changed = {}
    if options.get("fine_tune"):
        changed |= _second_stage(options, given)
    folder = changed.get("output_folder", options["output_folder"])
    for source, config in (("ssl_source", "ssl_config"), ("teacher", "teacher_config")):
        if config in options:
            changed[config] = _configuration(options, source, config, Path(folder))
    return changed


def _second_stage(options, given):
    """The options of large-margin fine-tuning: longer crops, a larger margin, speakers at their own speed alone."""
    changed = {
        one: options[own]
        for own, one in SECOND_STAGE.items()
        if own in options and (own in given or one not in given)
    }
    if "speeds" not in given:
        changed["speeds"] = [100]
    if "output_folder" not in given:
        changed["output_folder"] = f"{str(options['fine_tune']).rstrip('/')}_fine_tuned"
    # written out: it was made of the folder that is replaced
    folder = changed.get("output_folder", options["output_folder"])
    for name in ("save_folder", "train_log", "threshold_file"):
        if name not in given:
            place = Path(options[name])
            if place.is_relative_to(options["output_folder"]):
                changed[name] = str(folder / place.relative_to(options["output_folder"]))
    return changed


def _configuration(options, source, config, folder):
    """The configuration of a pretrained model: a trained run's, or the source's if nothing is trained yet."""
    run, option = folder, "output_folder"
    if not any((folder / "save").glob("CKPT*")) or not (folder / OPTIONS_FILE).is_file():
        run, option = options.get("fine_tune"), "fine_tune"
    if run:
        try:
            kept = read_options(run, [config])[config]
        except (OSError, ValueError) as error:
            raise SystemExit(f"{option}: {error}") from error
        if kept:
            return kept
    stated = options[config] or {}
    try:
        theirs = read_config(options[source])
        check_shape(theirs | stated, theirs, options[source])
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"{source}: {error}") from error
    return theirs | stated


def add_classifier(hparams, speakers):
    """Make the classifier of the training speakers, and let the Brain and the checkpoints know of it.

    Raises
    ------
    SystemExit
        If one of its options is outside its range.
    """
    try:
        classifier = hparams["classifier"](n_speakers=len(speakers) * len(hparams["speeds"]))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    hparams["modules"]["classifier"] = classifier
    hparams["checkpointer"].add_recoverable("classifier", classifier)
    return classifier


def is_new(hparams):
    """Whether a run has no checkpoint yet, so that it starts from the weights of another model, if of any."""
    return hparams["checkpointer"].find_checkpoint() is None


def average_of(run, model, name="model"):
    """Averaged weights of a trained run.

    Arguments
    ---------
    run : str or Path
        Output folder.
    model : torch.nn.Module
        Network of their kind.
    name : str
        ``model``, or another that the checkpoints hold.

    Returns
    -------
    dict of str: torch.Tensor

    Raises
    ------
    SystemExit
        If the folder is no trained run of this recipe.
    """
    try:
        keys = ["save_folder", "avg_checkpoints", "checkpoint_choice"]
        options = read_options(run, keys)
        checkpointer = open_checkpoints(options["save_folder"])

        def find():
            choice = options["checkpoint_choice"], options["avg_checkpoints"], SELECTION_KEYS
            found = []
            if checkpointer is not None:
                found = checkpoints_to_average(checkpointer, *choice)
            if not found:
                raise FileNotFoundError(
                    f"{run}: holds no checkpoint of a whole epoch; train it first"
                )
            return found

        def load(checkpoints):
            if name == "model":
                return average_model(checkpoints, model)
            weights = [read_weights(one.paramfiles[name]) for one in checkpoints]
            return {key: torch.stack([one[key] for one in weights]).mean(0) for key in weights[0]}

        return load_whole(checkpointer, find, load)
    except (KeyError, OSError, ValueError) as error:
        raise SystemExit(f"fine_tune: {error}") from error


def start_from_run(run, model, classifier, speakers, speeds):
    """Give a model and its classifier the averaged weights of a run; classes of other speeds are dropped.

    Weights that fit by name and shape are loaded, and the log counts the rest. With other speakers than the run's, the
    classifier stays new.

    Arguments
    ---------
    run : str or Path
        Output folder.
    model : torch.nn.Module
    classifier : modules.speaker.losses.SpeakerClassifier
    speakers : list of str
        Training speakers in the order of the classes.
    speeds : list of int
        Speeds in %, whose classes follow one another.

    Raises
    ------
    SystemExit
        If nothing of the run fits the model, or the run is of other speeds.
    """
    weights = average_of(run, model)
    kept = read_options(run, ["save_folder", "speeds"])
    if not isinstance(kept["speeds"], list):
        raise SystemExit(f"fine_tune: {Path(run) / OPTIONS_FILE}: speeds must be a list of numbers")
    record = kept["save_folder"] / "speakers.json"
    if _speakers_of(record) != speakers:
        load_fitting(model, weights, run, "fine_tune")
        logger.warning(
            "--fine_tune: %s was trained on other speakers than the %d of this data: the classifier starts anew",
            run,
            len(speakers),
        )
        return
    if kept["speeds"][: len(speeds)] != list(speeds):
        raise SystemExit(
            f"fine_tune: the classes of {run} are its speakers at the speeds {kept['speeds']}; give --speeds the "
            f"first of these in their order, not {list(speeds)}"
        )
    rows = average_of(run, classifier, "classifier")
    rows = {key: value[: len(classifier.state_dict()[key])] for key, value in rows.items()}
    both = torch.nn.ModuleDict({"model": model, "classifier": classifier})
    named = {f"model.{key}": value for key, value in weights.items()}
    named |= {f"classifier.{key}": value for key, value in rows.items()}
    load_fitting(both, named, run, "fine_tune", prefix_parts=2)


def _speakers_of(record):
    """The speakers that a run was trained on, in the order of its classes; None if it does not say."""
    if not record.is_file():
        return None
    try:
        content = read_json(record)
    except (OSError, ValueError) as error:
        raise SystemExit(f"fine_tune: {error}") from error
    return content.get("speakers") if isinstance(content, dict) else None


def load_teacher(module, hparams, source):
    """Give a self-supervised network its pretrained weights.

    Arguments
    ---------
    module : torch.nn.Module
    hparams : dict
        With ``pretrained_folder``, where models of the Hub are kept.
    source : str
        Option that names the model.

    Raises
    ------
    SystemExit
        If it cannot be read, or is another than its configuration says.
    """
    try:
        unused = load_pretrained(module, hparams[source], hparams["pretrained_folder"])
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"{source}: {error}") from error
    own = module.state_dict()
    loaded = {name: one for name, one in own.items() if name.startswith("network.")}
    new = {name: one for name, one in own.items() if name not in loaded}
    report(source, hparams[source], loaded, new, unused)
