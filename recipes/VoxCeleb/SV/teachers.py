"""Teachers of a distillation: self-supervised networks, and Resemblyzer's voice encoder from its installed package."""

import importlib.util
from pathlib import Path

from mamba_speech.checkpoints import read_tensors
from modules.speaker.resemblyzer import VoiceEncoder
from modules.speaker.self_supervised import SelfSupervised, load_pretrained

RESEMBLYZER = "resemblyzer"


def load_teacher(hparams):
    """A frozen teacher in evaluation mode.

    Arguments
    ---------
    hparams : dict
        With ``teacher``: ``resemblyzer``, or a name on the Hub or a folder; then with ``teacher_config`` too.

    Returns
    -------
    torch.nn.Module
        :class:`VoiceEncoder`, or :class:`SelfSupervised`.

    Raises
    ------
    SystemExit
        If it cannot be read, or is another than its configuration says.
    """
    try:
        if hparams["teacher"] == RESEMBLYZER:
            teacher = VoiceEncoder()
            teacher.load_state_dict(read_voice_encoder())
        else:
            teacher = SelfSupervised(hparams["teacher_config"], layer="last")
            load_pretrained(teacher, hparams["teacher"], hparams["pretrained_folder"])
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"teacher: {error}") from error
    return teacher.eval().requires_grad_(False)


def read_voice_encoder():
    """Weights of Resemblyzer's voice encoder.

    The package is not imported, since it wants others that nothing here needs.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If its file holds other than weights.
    """
    package = importlib.util.find_spec(RESEMBLYZER)
    file = None if package is None else Path(package.origin).with_name("pretrained.pt")
    if file is None or not file.is_file():
        raise FileNotFoundError(
            "the package resemblyzer, which holds the teacher's weights, is not installed: "
            "pip install --no-deps resemblyzer"
        )
    state = read_tensors(file).get("model_state", {})
    # the scale and the offset of its training loss
    return {key: value for key, value in state.items() if not key.startswith("similarity_")}


def copy_front_end(model, teacher):
    """Let a student begin with its teacher's convolutions."""
    model.front_end.load_state_dict(teacher.network.feature_extractor.state_dict(), strict=True)
