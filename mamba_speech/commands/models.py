"""The model of a run of any task, loaded by the class of its task."""

import importlib

from mamba_speech.run_task import task_of
from mamba_speech.task_commands import RUNS

_CLASSES = {
    "recognition": ("mamba_speech.asr.recognizer", "Recognizer"),
    "streaming": ("mamba_speech.asr.recognizer", "Recognizer"),
    "separation": ("mamba_speech.separation.separator", "Separator"),
    "keywords": ("mamba_speech.kws.spotter", "KeywordSpotter"),
    "speaker": ("mamba_speech.speaker.verifier", "SpeakerVerifier"),
}


def known_task(run_folder):
    """The task of a run, see :func:`mamba_speech.run_task.task_of`.

    Raises
    ------
    OSError, ValueError
        If the folder is no run, or a run of no task that is used by itself.
    """
    task = task_of(run_folder)
    if task is not None:
        return task
    # the loader of runs says what is wrong with the folder, if anything is
    from mamba_speech.run import read_options

    read_options(run_folder, [])
    raise ValueError(
        f"{run_folder}: this run is none of {', '.join(RUNS)}: a language model, for example, is used by a "
        "recogniser, as in `mamba-speech transcribe RUN INPUT --lm FOLDER`"
    )


def load_model(run_folder, task, device=None, **options):
    """The recogniser, separator, keyword spotter or speaker verifier of a run.

    Arguments
    ---------
    run_folder : str or Path
    task : str
        See :func:`known_task`.
    device : str or torch.device, optional
    **options
        Further arguments of the ``load`` of the task's class.
    """
    module, name = _CLASSES[task]
    return getattr(importlib.import_module(module), name).load(run_folder, device, **options)


def network_of(model):
    """The network of what :func:`load_model` gives, a torch.nn.Module."""
    return model.network if hasattr(model, "network") else model.model


def count_parameters(network):
    """Numbers of a network that are learnt.

    Example
    -------
    >>> import torch
    >>> count_parameters(torch.nn.Linear(3, 2))
    8
    """
    return sum(one.numel() for one in network.parameters())
