"""Trained runs as folders that others load: the formats, and what holds for every format.

A format is a module with ``export(run_folder, folder, options)``. It writes into an empty folder, which gets its
name when all is written.
"""

import importlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mamba_speech.run import given_folder
from mamba_speech.run_task import KEYWORDS, RECOGNITION, SEPARATION, SPEAKER, STREAMING, task_of

DEFAULT_FORMAT = "speechbrain"


@dataclass(frozen=True)
class Format:
    """A kind of folder.

    Attributes
    ----------
    module : str
        Name of the module with ``export(run_folder, folder, options)``.
    tasks : tuple of str
        Tasks of runs that it takes, see :func:`mamba_speech.run_task.task_of`.
    summary : str
        Who loads it, in a few words.
    options : tuple of str
        Names of the options that it takes.
    """

    module: str
    tasks: tuple
    summary: str
    options: tuple = ()


FORMATS = {
    "speechbrain": Format(
        "mamba_speech.export.speechbrain",
        (RECOGNITION, STREAMING, SEPARATION, KEYWORDS, SPEAKER),
        "SpeechBrain's inference classes",
    ),
    "onnx": Format(
        "mamba_speech.export.onnx",
        (RECOGNITION, KEYWORDS),
        "onnxruntime, without PyTorch",
        ("quantize", "opset"),
    ),
}


def export_run(
    run_folder,
    folder,
    export_format=DEFAULT_FORMAT,
    *,
    push_to_hub=None,
    private=False,
    **options,
):
    """Write a trained run as a folder that others load, whole or not at all.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a training, wherever it lies now; it may be read-only.
    folder : str or Path
        It is made; one that is there must be empty.
    export_format : str
        Key of :data:`FORMATS`.
    push_to_hub : str, optional
        Repository of the Hugging Face Hub, `OWNER/NAME`, that gets the folder too.
    private : bool
        Whether a repository that is made is private.
    **options
        Options of the format.

    Returns
    -------
    str or None
        The address of the repository.

    Raises
    ------
    FileExistsError
        If the folder holds anything.
    FileNotFoundError, ValueError
        If the run cannot be loaded, is of no task known here or of none that the format takes; if the format is
        unknown.
    OSError
        If the hub does not answer or refuses the user; then nothing is written. If the hub fails while it gets the
        folder; then the folder is there.

    Example
    -------
    Not run here, since it needs a trained run::

        export_run("results/mini/1", "exported")
    """
    if export_format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {export_format!r}")
    form = FORMATS[export_format]
    for name in options:
        if name not in form.options:
            raise ValueError(f"{name} is no option of --format {export_format}: leave it out")
    run_folder = given_folder(run_folder)
    if not run_folder.is_dir():
        raise FileNotFoundError(f"{run_folder}: no such folder; give the output folder of a run")
    task = task_of(run_folder)
    if task is None:
        raise ValueError(
            f"{run_folder}: is no run that can be exported; give the output folder of a recogniser's, a separator's, "
            "a keyword spotter's or a speaker verifier's training"
        )
    if task not in form.tasks:
        others = [name for name, one in FORMATS.items() if task in one.tasks]
        advice = f"give --format {' or '.join(others)}" if others else "no other format takes it"
        raise ValueError(
            f"{run_folder}: is a run of the task {task}, which --format {export_format} does not take: {advice}"
        )
    if push_to_hub is not None:
        # not at the top, since who does not push need not wait for it
        from mamba_speech.export import hub

        hub.check_hub(push_to_hub)
    with _whole_folder(folder) as temporary:
        importlib.import_module(form.module).export(run_folder, temporary, options)
    return None if push_to_hub is None else hub.push_folder(folder, push_to_hub, private)


@contextmanager
def _whole_folder(folder):
    """A temporary folder beside ``folder``, which gets its name at the end; a context manager.

    An exception removes the temporary folder, and leaves ``folder`` as it was.
    """
    folder = Path(os.path.realpath(given_folder(folder)))
    _check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(
        tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent)
    )
    try:
        yield temporary
        # the temporary one is nobody else's to read
        temporary.chmod(0o777 & ~_umask())
        # a second export may have been quicker
        _check_free(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_free(folder):
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; give a folder that is not there yet")
    if any(folder.iterdir()):
        raise FileExistsError(
            f"{folder}: is there already and holds files; give a folder that is not there yet"
        )


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
