"""The format `speechbrain`: a folder that SpeechBrain's own inference classes load, and that serves as a run.

The YAML names networks and their arguments. The weights of all networks stand in one safetensors file.
"""

import importlib

from mamba_speech import __version__, synthetic
from mamba_speech.export.card import write_card
from mamba_speech.export.content import dump
from mamba_speech.export.record import RECORD, read_record
from mamba_speech.exported import MARK, WEIGHTS_FILE, save_weights
from mamba_speech.files import write_json, write_text
from mamba_speech.run import OPTIONS_FILE
from mamba_speech.run_errors import errors_name_run
from mamba_speech.run_task import KEYWORDS, RECOGNITION, SEPARATION, SPEAKER, STREAMING, task_of

_MODULES = {
    RECOGNITION: "recognition",
    STREAMING: "recognition",
    SEPARATION: "separation",
    KEYWORDS: "keywords",
    SPEAKER: "speaker",
}
_PRETRAINER = """\
pretrainer: !new:mamba_speech.export.pretrainer.FolderPretrainer
    loadables:
{loadables}
    files:
{files}
"""


def export(run_folder, folder, options):
    """Write a run into an empty folder; see :func:`mamba_speech.export.export_run`."""
    task = task_of(run_folder)
    module = importlib.import_module(f"mamba_speech.export.{_MODULES[task]}")
    with errors_name_run(run_folder):
        content = module.content_of(run_folder)
    save_weights(folder / WEIGHTS_FILE, content.networks)
    for name, write in content.writers.items():
        write(folder / name)
    heard = synthetic.heard_only_synthetic(run_folder)
    if heard is not None:
        write_json(folder / synthetic.NOTE_FILE, {"synthetic": heard})
    record = read_record(run_folder)
    if record:
        write_json(folder / RECORD, record)
    size = sum(one.numel() for one in content.networks["model"].parameters())
    card = write_card(task, content.interface, content.limits, record, heard, size)
    write_text(folder / "README.md", card)
    # last: without it the folder is no model
    write_text(folder / OPTIONS_FILE, _options_of(content))


def _options_of(content):
    """The text of hyperparams.yaml."""
    files = dict.fromkeys(content.networks, WEIGHTS_FILE) | content.loadables
    lines = {
        "loadables": "\n".join(f"        {name}: !ref <{name}>" for name in files),
        "files": "\n".join(f"        {name}: {file}" for name, file in files.items()),
    }
    head = (
        f"# A trained model for SpeechBrain's {content.interface}; README.md says how to use it.\n"
    )
    # a run's files lie in its output folder
    head += dump({MARK: f"mamba-speech {__version__}", "output_folder": "."})
    return head + content.options + _PRETRAINER.format(**lines)
