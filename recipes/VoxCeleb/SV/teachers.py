"""Teachers of a distillation: self-supervised networks, and Resemblyzer's voice encoder from its installed package."""

import importlib.util
from pathlib import Path

import torch
from speechbrain.augment.time_domain import SpeedPerturb

from mamba_speech.audio import load_audio
from mamba_speech.checkpoints import read_tensors
from modules.speaker.resemblyzer import VoiceEncoder
from modules.speaker.self_supervised import SelfSupervised, load_pretrained
from training.loading import seeded

RESEMBLYZER = "resemblyzer"
HEARS = ("recordings", "crops")


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
    if hparams.get("teacher_hears", HEARS[0]) not in HEARS:
        raise SystemExit(
            f"teacher_hears must be one of {', '.join(HEARS)}; got {hparams['teacher_hears']}"
        )
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


class RecordingTargets:
    """A teacher's embeddings of whole recordings without noise, each made once and kept.

    A crop's own embedding tells less of the voice, and takes the teacher's time at every step.

    Arguments
    ---------
    teacher : torch.nn.Module
        On its device.
    speeds : list of int
        Speeds in %, one a voice.
    seconds : float
        Longest part of a recording that is heard, from its start.
    """

    def __init__(self, teacher, speeds, seconds=20.0):
        self.teacher, self.samples = teacher, round(seconds * teacher.sample_rate)
        self.perturb = [SpeedPerturb(teacher.sample_rate, [speed]) for speed in speeds]
        self.speeds, self.kept = list(speeds), {}

    def __call__(self, paths, voices):
        """Embeddings (recordings, size) of recordings at the speeds with these numbers."""
        return torch.stack([self._embed(*key) for key in zip(paths, voices, strict=True)])

    def _embed(self, path, voice):
        if (path, voice) not in self.kept:
            # alone, so that the bits do not depend on the others of a batch
            wav = load_audio(path, self.teacher.sample_rate)[: self.samples]
            if self.speeds[voice] != 100:
                with seeded(0):
                    wav = self.perturb[voice](wav[None])[0]
            device = next(self.teacher.parameters()).device
            with torch.no_grad():
                self.kept[path, voice] = self.teacher(wav[None].to(device))[0]
        return self.kept[path, voice]
