"""Small trees of mixtures, and the separation recipe's scripts run as a user runs them."""

import contextlib
import csv
import importlib
import json
import sys
from pathlib import Path

import numpy
import soundfile
import torch
import yaml
from speechbrain.utils.run_opts import RunOptions

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "WSJ0Mix" / "separation"
FOLDER = RECIPE / "hparams"
YAMLS = sorted(FOLDER.glob("*.yaml"))
RATE = 8000
# sizes only: the rest of each YAML stays as it is
SMALL = {"N_encoder_out": 16, "out_channels": 8, "kernel_size": 16, "n_mamba": 1, "ssm_dim": 4}
SMALL |= {"n_dp": 1, "chunk_size": 20, "intra_layers": 1, "inter_layers": 1, "nhead": 2}
SMALL |= {"d_ffn": 16, "num_workers": 0, "n_warmup_step": 2, "n_audio_to_save": 1}
SCRIPTS = ("train", "train_wsj0mix", "separation_data", "augmentation", "dynamic_mixing")


def say(speaker, seconds, random):
    """A few syllables of one speaker's pitch and timbre, (samples,)."""
    time = numpy.arange(round(seconds * RATE)) / RATE
    vibrato = numpy.sin(2 * numpy.pi * random.uniform(1, 3) * time)
    phase = 2 * numpy.pi * numpy.cumsum((110 + 60 * speaker) * (1 + 0.05 * vibrato)) / RATE
    tone = sum(numpy.sin(k * phase) / k for k in range(1, 5 + speaker))
    syllables = 0.6 + 0.4 * numpy.sin(2 * numpy.pi * random.uniform(3, 5) * time)
    return 0.05 * tone * syllables + 0.001 * random.standard_normal(len(time))


def write_tree(folder, counts=(8, 4, 4), speakers=2, seed=0):
    """Mixtures in the layout of WSJ0-2mix, of 0.5 to 0.8 s; gives their folder."""
    random = numpy.random.default_rng(seed)
    for split, count in zip(("tr", "cv", "tt"), counts, strict=True):
        place = folder / "wav8k" / "min" / split
        for name in ("mix", *(f"s{number + 1}" for number in range(speakers))):
            (place / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seconds = random.uniform(0.5, 0.8)
            sources = [say(one, seconds, random) for one in random.permutation(4)[:speakers]]
            # as 16 bit integers, so that what is written adds up exactly
            sources = [numpy.round(source * 2**15).astype("int16") for source in sources]
            write_mixture(place, f"{split}{number}", sources)
    return folder


def write_mixture(place, name, sources, subtype="PCM_16"):
    """One mixture's files in a split's folder."""
    for part, sound in (("mix", sum(sources)), *((f"s{n + 1}", s) for n, s in enumerate(sources))):
        soundfile.write(place / part / f"{name}.wav", sound, RATE, subtype)


def write_speakers(folder, speakers=4, utterances=3, seconds=0.7):
    """Recordings of single speakers, a folder each, for dynamic mixing."""
    random = numpy.random.default_rng(1)
    for speaker in range(speakers):
        (folder / f"speaker{speaker}").mkdir(parents=True)
        for number in range(utterances):
            sound = say(speaker, seconds, random)
            soundfile.write(folder / f"speaker{speaker}" / f"{number}.wav", sound, RATE, "PCM_16")
    return folder


def plain_options(path):
    """Top-level keys of a YAML that hold a number, a text, a switch or a list, with their values."""
    node = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return {
        key.value: yaml.safe_load(yaml.serialize(value))
        for key, value in node.value
        if value.tag.startswith("tag:") and not isinstance(value, yaml.MappingNode)
    }


@contextlib.contextmanager
def scripts(monkeypatch):
    """Gives the recipe's scripts as modules by name, their folder being where Python looks first.

    SpeechBrain's list of all installed packages, for which it starts pip and git in every run, is left out: it takes
    longer than such a run.
    """
    monkeypatch.setattr("speechbrain.utils.logger.get_environment_description", lambda: "")
    monkeypatch.syspath_prepend(str(RECIPE))
    forget()
    yield importlib.import_module
    forget()


def forget():
    """Forget scripts, since another recipe's have the same names."""
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def command_line(name, *flags, **options):
    """Arguments of train.py: options that the YAML does not know, such as another network's sizes, are left out."""
    path = FOLDER / f"{name}.yaml"
    known = plain_options(path) | RunOptions.__dataclass_fields__
    arguments = [str(path), "--noprogressbar", *flags]
    for key, value in options.items():
        if key in known or key not in SMALL:
            arguments += [f"--{key}", str(value)]
    return arguments


def checkpoints(folder):
    """Complete checkpoints of a run, the oldest first."""
    found = [path.parent for path in (Path(folder) / "save").glob("CKPT*/CKPT.yaml")]
    return sorted(
        found, key=lambda path: yaml.safe_load((path / "CKPT.yaml").read_text())["unixtime"]
    )


def weights(checkpoint):
    """All weights of a checkpoint."""
    return {
        f"{part}.{name}": value
        for part in ("encoder", "masknet", "decoder")
        for name, value in torch.load(checkpoint / f"{part}.ckpt", weights_only=True).items()
    }


def results(folder):
    """The test's entry in a run's results."""
    return json.loads((folder / "results.json").read_text())["test"]


def read_csv(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def logged(folder):
    """The epochs' figures, by name."""
    lines = (folder / "train_log.txt").read_text().splitlines()
    for line in (line for line in lines if line.startswith("epoch")):
        pairs = line.replace(" - ", ", ").split(", ")
        yield {name: float(value) for name, value in (pair.split(": ") for pair in pairs)}
