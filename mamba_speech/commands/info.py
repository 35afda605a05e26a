"""The command `mamba-speech info`: what a run is, what it learnt from, and how good it was in its tests."""

import shlex
from pathlib import Path

from mamba_speech.arguments import add_json, add_run_folder
from mamba_speech.checkpoint_files import list_folders, read_meta
from mamba_speech.commands.citing import LICENCE, citations
from mamba_speech.commands.models import count_parameters, known_task, load_model, network_of
from mamba_speech.commands.showing import show
from mamba_speech.files import error_text, read_json
from mamba_speech.plain_yaml import read_scalars, read_tag
from mamba_speech.run import OPTIONS_FILE, load_run
from mamba_speech.run_task import task_of
from mamba_speech.synthetic import heard_only_synthetic
from mamba_speech.task_commands import RUNS

RECORD, LANGUAGE_MODEL = "results.json", "language model"
# figures of a validation, in the order in which runs are judged by them
_VALIDATION = ("WER", "token_error", "EER", "error", "loss", "si-snr", "-si-snr", "ACC")
# options that say which speech a run read
_DATA = ("data_folder", "train_manifest", "valid_manifest", "train_splits", "test_splits")
_DATA += ("base_folder_dm", "train_data", "noise_folder", "text_files")


def add_arguments(parser):
    """Give the parser of `mamba-speech info` its arguments."""
    add_run_folder(parser)
    add_json(parser)
    parser.epilog = (
        "Prints the task, the size, the data, the figures of its tests and its validation, the command of its "
        "training, and how to cite it. What the run did not record is left out. The exit status is 1 if the weights "
        "cannot be loaded; the rest is printed all the same."
    )


def run_command(arguments):
    """Run `mamba-speech info`; returns the exit status, 1 if the weights cannot be loaded."""
    found = describe_run(arguments.run_folder)
    show(found, arguments.json)
    return 1 if found.get("fault") else 0


def describe_run(run_folder):
    """What a run tells of itself.

    Arguments
    ---------
    run_folder : str or Path

    Returns
    -------
    dict
        Texts, numbers, lists and dicts of these, by name. ``fault`` says why the weights cannot be loaded. What is
        not known is left out.

    Raises
    ------
    OSError, ValueError
        If the folder is no run.
    """
    folder = Path(run_folder)
    file = folder / OPTIONS_FILE
    options = read_scalars(file) if file.is_file() else {}
    network = (read_tag(file, "model") or "").removeprefix("!new:") if options else None
    is_language_model = task_of(folder) is None and (network or "").startswith("modules.asr.")
    task = LANGUAGE_MODEL if is_language_model else known_task(folder)
    command = "transcribe RUN INPUT --lm" if is_language_model else RUNS[task][1]
    found = {"run": str(run_folder), "task": task, "command": f"mamba-speech {command}"}
    found["network"] = network
    record = _read_record(folder)
    try:
        found |= _told(folder, task, options, record)
    except (AttributeError, KeyError, TypeError) as error:
        # it may come from anyone
        raise ValueError(
            f"{folder / RECORD}: is no record of a run ({type(error).__name__}: {error})"
        ) from error
    found |= {"licence": LICENCE, "cite": citations(task)}
    return {name: value for name, value in found.items() if value not in (None, {}, [], "")}


def _told(folder, task, options, record):
    """What the model, the options and the record tell."""
    training, tests = record.get("training") or {}, record.get("tests") or {}
    found = _loaded(folder, task, training, tests)
    found |= {name: options.get(name) for name in ("fidelity", "number_of_epochs", "precision")}
    found["data"] = _data_of(folder, options, training)
    found["training"] = _training_of(record, training)
    found["tests"] = {name: one["figures"] for name, one in tests.items() if "figures" in one}
    found["validation"] = _validation_of(folder)
    found["versions"] = _last_session(training, tests).get("versions")
    return found


def _read_record(folder):
    try:
        record = read_json(folder / RECORD)
    except FileNotFoundError:
        return {}
    if not isinstance(record, dict):
        raise ValueError(f"{folder / RECORD}: is no record of a run")  # noqa: TRY004 - a fault of the file
    return record


def _loaded(folder, task, training, tests):
    """What only the loaded model tells; of one that cannot be loaded, why, and what its record tells."""
    try:
        if task == LANGUAGE_MODEL:
            network = load_run(folder, [], selection_key="loss")["model"]
            return {"parameters": count_parameters(network)}
        model = load_model(folder, task, "cpu")
    except (OSError, RuntimeError, ValueError) as error:
        sizes = [training.get("parameters"), *(one.get("parameters") for one in tests.values())]
        return {
            "fault": error_text(error),
            "parameters": next((one for one in sizes if one is not None), None),
        }
    found = {
        "parameters": count_parameters(network_of(model)),
        "sample_rate": model.sample_rate,
    }
    if task == "keywords":
        found["words"] = [one for one in model.labels if not one.startswith("_")]
        found["causal"] = model.causal
    elif task == "separation":
        found |= {"speakers": model.num_spks, "causal": model.causal}
    elif task == "speaker":
        found["threshold"] = None if model.threshold is None else model.threshold.value
    else:
        found["tokens"] = len(model.tokenizer)
    return found


def _data_of(folder, options, training):
    """Which speech the run read, as far as it tells."""
    told = {name: options[name] for name in _DATA if options.get(name) not in (None, "", [])}
    synthetic = heard_only_synthetic(folder)
    lists = {}
    for session in training.get("sessions") or []:
        lists |= session.get("lists") or {}
    return told | {
        name: value
        for name, value in (("only_synthetic_speech", synthetic), ("lists_sha256", lists))
        if value not in (None, {})
    }


def _training_of(record, training):
    names = ("started", "ended", "seconds", "epochs", "optimizer_steps", "peak_memory_mb")
    told = {name: training.get(name) for name in names}
    sessions = training.get("sessions") or []
    if sessions and record.get("recipe"):
        told["folder"] = record["recipe"].get("folder")
        told["command"] = training_command(record["recipe"], sessions[0])
        told |= {name: sessions[0].get(name) for name in ("device", "processor", "threads")}
        told["commit"] = (sessions[0].get("commit") or {}).get("sha")
    return {name: value for name, value in told.items() if value is not None}


def training_command(recipe, session):
    """The command of a session, for the recipe's folder.

    Arguments
    ---------
    recipe, session : dict
        Of a run's record.
    """
    processes = session.get("world_size") or 1
    start = ["torchrun", f"--nproc-per-node={processes}"] if processes > 1 else ["python"]
    # a record names the YAML from the project's folder; a recipe's hparams leads there
    parts = Path(session.get("yaml") or "").parts
    yaml = Path("hparams", *parts[3:]) if parts[:1] == ("hparams",) else Path(*parts)
    given = session.get("overrides") or {}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return shlex.join([*start, str(recipe.get("script")), yaml.as_posix(), *words])


def _validation_of(folder):
    """The best figure among the checkpoints that were kept."""
    metas = []
    for one in list_folders(folder / "save"):
        try:
            metas.append(read_meta(one) or {})
        except (OSError, ValueError):
            # loading the weights says which checkpoint is damaged
            continue
    for name in _VALIDATION:
        kept = [(meta[name], meta["epoch"]) for meta in metas if name in meta and "epoch" in meta]
        if kept:
            value, epoch = (max if name == "ACC" else min)(kept)
            return {name: value, "epoch": epoch}
    return {}


def _last_session(training, tests):
    sessions = [
        *(training.get("sessions") or []),
        *(one.get("session") or {} for one in tests.values()),
    ]
    return sessions[-1] if sessions else {}
