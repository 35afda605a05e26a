"""Which task the model in a folder was trained for; its YAML tells it, of which nothing is built."""

from pathlib import Path

from mamba_speech.plain_yaml import read_tag
from mamba_speech.run import OPTIONS_FILE

RECOGNITION, STREAMING, SEPARATION = "recognition", "streaming", "separation"
KEYWORDS, SPEAKER = "keywords", "speaker"
_OF_PACKAGES = {
    "modules.asr.": RECOGNITION,
    "modules.separation.": SEPARATION,
    "modules.kws.": KEYWORDS,
    "modules.speaker.": SPEAKER,
}


def task_of(run_folder):
    """The task of a run.

    Arguments
    ---------
    run_folder : str or Path

    Returns
    -------
    str or None
        ``recognition``, ``streaming`` (recognition of a stream), ``separation``, ``keywords`` or ``speaker``. None
        where nothing tells.

    Example
    -------
    >>> task_of("nowhere") is None
    True
    """
    folder = Path(run_folder)
    file = folder / OPTIONS_FILE
    if not file.is_file():
        return SEPARATION if _has_published_parts(folder) else None
    tag = (read_tag(file, "model") or "").removeprefix("!new:")
    if tag == "torch.nn.ModuleList":
        return RECOGNITION
    task = next((task for start, task in _OF_PACKAGES.items() if tag.startswith(start)), None)
    if task == RECOGNITION and "causal_frontend" in (read_tag(file, "compute_features") or ""):
        return STREAMING
    if tag.startswith("modules.asr.") and read_tag(file, "compute_features") is None:
        # a language model hears nothing
        return None
    if task is None and _has_published_parts(folder):
        return SEPARATION
    return task


def _has_published_parts(folder):
    """Whether it is a folder of xi-j/Mamba-TasNet: a checkpoint, or a run with checkpoints."""
    patterns = ("masknet.ckpt", "CKPT+*/masknet.ckpt", "save/CKPT+*/masknet.ckpt")
    return any(any(folder.glob(pattern)) for pattern in patterns)
