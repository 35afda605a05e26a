"""Teachers of a distillation: self-supervised networks, and Resemblyzer's voice encoder from its installed package."""

import hashlib
import importlib.util
from pathlib import Path

import torch
from options import RESEMBLYZER
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.utils.distributed import run_on_main

from mamba_speech.audio import load_audio
from mamba_speech.checkpoints import read_tensors
from mamba_speech.files import read_json, write_json
from modules.speaker.resemblyzer import VoiceEncoder
from modules.speaker.self_supervised import SelfSupervised, load_pretrained
from training.loading import seeded


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


def keep_teacher(teacher, hparams):
    """Note beside the checkpoints who teaches a run, by a hash of all weights; see :func:`check_teacher`.

    Arguments
    ---------
    teacher : torch.nn.Module
        On the CPU.
    hparams : dict
        With ``teacher`` and ``save_folder``.

    Raises
    ------
    SystemExit
        If the checkpoints there come of another teacher.
    """
    run_on_main(check_teacher, args=(teacher, hparams["teacher"], Path(hparams["save_folder"])))


def check_teacher(teacher, name, folder):
    """Write ``teacher.json`` into the folder of the checkpoints, or compare the teacher with the one there."""
    hashed = hashlib.sha256()
    for key, value in sorted(teacher.state_dict().items()):
        hashed.update(key.encode())
        hashed.update(value.contiguous().flatten().view(torch.uint8).numpy())
    now, record = hashed.hexdigest(), folder / "teacher.json"
    if record.is_file() and any(folder.glob("CKPT*")):
        if read_json(record).get("weights") != now:
            raise SystemExit(
                f"teacher: {name} has other weights than the teacher of the run in {folder}; give that teacher, or "
                "another --output_folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, {"teacher": name, "weights": now})


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
