"""Filling in the record of a run (training/results.py): when training begins, after each epoch, after each test.

All of it is for the main process. The file is read and written anew each time. Whatever takes long, such as asking git
and hashing lists, is done before it is read. So a test and a training lose each other's entries only if both write
within the same milliseconds: nothing locks the file.
"""

import dataclasses
import filecmp
import itertools
import logging
import platform
import sys
from pathlib import Path

import torch

from mamba_speech.files import copy_file
from training.experiment import count_parameters, describe_device
from training.provenance import (
    ROOT,
    find_commit,
    hash_list,
    load_average,
    processor,
    utc_now,
    version_of,
)
from training.results import (
    FILE_NAME,
    VERSION,
    Checkpoints,
    Commit,
    Recipe,
    Record,
    Result,
    Session,
    Training,
    Versions,
    read_results,
    write_results,
)
from training.training_speech import note_beside_checkpoints, only_synthetic

logger = logging.getLogger(__name__)


def begin_training(brain):
    """Note that training begins or goes on, and set the results of the earlier model aside.

    A process that is killed in here leaves the earlier record under its own name, set aside, or both.

    Arguments
    ---------
    brain : training.brain.RecipeBrain

    Raises
    ------
    SystemExit
        If the record there cannot be read.
    """
    session, training = _session(brain), _training(brain)
    record = _read(brain)
    if record.tests:
        _set_aside(brain)
        record.tests = {}
    # the script that tested the folder, or trained the model before, may have been another
    record.recipe = _recipe(brain)
    if record.training is not None and record.training.optimizer_steps and not brain.optimizer_step:
        # the checkpoints that it tells of are gone: this is another model
        record.training = None
    if record.training is None:
        record.training = training
        # of a folder with checkpoints the first start is not known
        if not brain.optimizer_step:
            record.training.started = session.started
    record.training.synthetic = only_synthetic(brain, record.training)
    note_beside_checkpoints(brain, record.training.synthetic)
    record.training.sessions.append(session)
    write_results(brain.hparams.output_folder, record)


def record_epoch(brain, epoch=None):
    """Note what training has come to.

    Arguments
    ---------
    brain : training.brain.RecipeBrain
    epoch : int, optional
        The epoch that has ended; by default training has, and with it the session.
    """
    training = dataclasses.replace(_training(brain), ended=utc_now())
    record = _read(brain)
    if record.training is None or not record.training.sessions:
        return
    own = record.training.sessions[-1]
    if epoch is None:
        own.ended, own.load_end = utc_now(), load_average()
    before = record.training
    training.epochs = epoch or before.epochs
    training.started, training.sessions = before.started, before.sessions
    training.synthetic = before.synthetic
    record.training = training
    write_results(brain.hparams.output_folder, record)


def record_result(brain, test_set, figures, items, decoding=None, conditions=None):
    """Write or replace the entry of a test set.

    Arguments
    ---------
    brain : training.brain.RecipeBrain
    test_set : str
    figures : dict of str: float
        What was measured on it.
    items : int
        How many utterances, clips, mixtures or sentences it holds.
    decoding : dict, optional
        How it was decoded.
    conditions : dict, optional
        What else the entry is to say.
    """
    session = dataclasses.replace(_session(brain), ended=utc_now(), load_end=load_average())
    manifest, training = brain.test_lists.get(test_set), _training(brain)
    result = Result(
        figures={name: round(float(value), 4) for name, value in figures.items()},
        items=items,
        manifest=None if manifest is None else _hash(manifest),
        decoding=decoding,
        conditions=conditions or {},
        checkpoints=brain.averaged,
        parameters=count_parameters(brain.hparams.model),
        optimizer_steps=brain.optimizer_step,
        train_seconds=round(brain.cost.seconds, 3),
        peak_memory_mb=round(brain.cost.peak_memory_mb),
        date=session.ended,
        session=session,
    )
    record = _read(brain)
    if record.training is None and brain.averaged is not None:
        # the record was lost: checkpoints tell what training came to, but not when
        record.training = training
    record.tests[test_set] = result
    write_results(brain.hparams.output_folder, record)


def describe_checkpoints(brain, checkpoints):
    """The checkpoints that are averaged, for the record."""
    return Checkpoints(
        choice=brain.hparams.checkpoint_choice,
        selection_key=brain.selection_key,
        epochs=[checkpoint.meta["epoch"] for checkpoint in checkpoints],
        values=[float(brain.selection_value(checkpoint)) for checkpoint in checkpoints],
    )


def check_record(brain):
    """Read the record before anything is trained or tested for it.

    Raises
    ------
    SystemExit
        If it cannot be read.
    """
    _read(brain)


def _read(brain):
    try:
        record = read_results(brain.hparams.output_folder)
    except FileNotFoundError:
        record = Record(VERSION, None, None, {})
    except ValueError as error:
        raise SystemExit(str(error)) from error
    record.recipe = record.recipe or _recipe(brain)
    return record


def _set_aside(brain):
    """Copy the record to a name that no other results have; whoever writes the next one replaces it."""
    path = Path(brain.hparams.output_folder) / FILE_NAME
    stem = f"results_before_step_{brain.optimizer_step + 1}"
    names = itertools.chain([stem], (f"{stem}_{count}" for count in itertools.count(2)))
    for target in (path.with_name(f"{name}.json") for name in names):
        if not target.exists():
            copy_file(path, target)
        # by a process that was killed before it wrote the next record
        elif not filecmp.cmp(path, target, shallow=False):
            continue
        logger.info("training goes on: the results so far are now in %s", target)
        return


def _recipe(brain):
    """The script that defines the Brain, and its folder as seen from the project's."""
    script = Path(getattr(sys.modules[type(brain).__module__], "__file__", sys.argv[0])).resolve()
    return Recipe(_within_project(script.parent), script.name)


def _within_project(path):
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _training(brain):
    return Training(
        started=None,
        ended=None,
        seconds=round(brain.cost.seconds, 3),
        epochs=_finished_epochs(brain),
        optimizer_steps=brain.optimizer_step,
        parameters=count_parameters(brain.hparams.model),
        peak_memory_mb=round(brain.cost.peak_memory_mb),
        sessions=[],
    )


def _finished_epochs(brain):
    """By the last checkpoint of a whole epoch, which the best ones may all come before."""
    if brain.checkpointer is None:
        return 0
    last = brain.checkpointer.find_checkpoint(
        ckpt_predicate=lambda one: brain.selection_value(one) is not None
    )
    return 0 if last is None else last.meta["epoch"]


def _session(brain):
    """What this start of the script is, made once; its end is not known yet."""
    if brain.session is None:
        options = vars(brain.hparams)
        start = options.get("invocation") or {"started": utc_now(), "load_start": load_average()}
        yaml = start.get("yaml")
        distributed = torch.distributed.is_initialized()
        commit = find_commit()
        brain.session = Session(
            started=start["started"],
            yaml=None if yaml is None else _within_project(Path(yaml).resolve()),
            overrides=start.get("overrides", {}),
            fidelity=options["fidelity"],
            seeds={key: value for key, value in options.items() if _is_seed(key, value)},
            lists={name: _hash(one) for name, one in brain.lists.items()},
            commit=None if commit is None else Commit(*commit),
            versions=installed_versions(),
            device=describe_device(brain.device),
            processor=processor(),
            threads=torch.get_num_threads(),
            world_size=torch.distributed.get_world_size() if distributed else 1,
            precision=str(brain.precision),
            eval_precision=str(brain.eval_precision),
            load_start=start["load_start"],
        )
    return brain.session


def _is_seed(key, value):
    return (key == "seed" or key.endswith("_seed")) and isinstance(value, int)


def _hash(one):
    """Of a file, or a hash as it is."""
    return hash_list(one) if isinstance(one, Path) else one


def installed_versions():
    """Versions of the software that runs, for the record."""
    named = ("torch", "torchaudio", "speechbrain")
    versions = {name: version_of(name) for name in named}
    # the version with its build, such as +cpu
    versions["torch"] = str(torch.__version__)
    own = version_of("mamba-speech")
    return Versions(
        platform.python_version(), **versions, mamba_speech=own, platform=platform.platform()
    )
