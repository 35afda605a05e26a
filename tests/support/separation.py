"""Small trees of mixtures, what the separation recipe's scripts are run with, and runs written by hand."""

import math
from pathlib import Path

import numpy
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references

from mamba_speech.separation.published import PARTS
from tests.support import recipes

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "WSJ0Mix" / "separation"
FOLDER = RECIPE / "hparams"
YAMLS = sorted(FOLDER.glob("*.yaml"))
RATE = 8000
# sizes only: the rest of each YAML stays as it is
SMALL = {"N_encoder_out": 16, "out_channels": 8, "kernel_size": 16, "num_layers": 1, "d_state": 4}
SMALL |= {"n_dp": 1, "chunk_size": 20, "intra_layers": 1, "inter_layers": 1, "nhead": 2}
SMALL |= {"d_ffn": 16, "num_workers": 0, "n_warmup_steps": 2, "n_audio_to_save": 1}


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


def command_line(name, *flags, **options):
    """Arguments of train.py for one of the YAMLs; sizes of another network are left out."""
    return recipes.command_line(FOLDER / f"{name}.yaml", *flags, small=SMALL, **options)


def weights(checkpoint):
    """All weights of a checkpoint."""
    return {
        f"{part}.{name}": value
        for part in ("encoder", "masknet", "decoder")
        for name, value in torch.load(checkpoint / f"{part}.ckpt", weights_only=True).items()
    }


def same_weights(first, second):
    """Whether two checkpoints hold the same weights."""
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def write_run(folder, yaml, **options):
    """What a run of the recipe leaves behind: options, and a checkpoint of random weights."""
    options = {"output_folder": str(folder), "data_folder": "none", **options}
    with open(FOLDER / yaml, encoding="utf-8") as file:
        text = resolve_references(file, options).getvalue()
    with torch.random.fork_rng():
        run = load_hyperpyyaml(text)
    run["checkpointer"].save_checkpoint(meta={"epoch": 1, "loss": -3.0})
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    return folder


def write_parts(folder, weights):
    """Save a state dict as one file a part."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        start = f"{part}."
        own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        torch.save(own, folder / f"{part}.ckpt")
    return folder


def tones(seconds, rate=RATE):
    """A low and a high voice that take turns and overlap: (samples, 2)."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    low = 0.3 * torch.sin(2 * math.pi * 300 * time) * torch.sin(2 * math.pi * 0.31 * time) ** 2
    high = (
        0.2 * torch.sin(2 * math.pi * 3000 * time) * torch.sin(2 * math.pi * 0.23 * time + 1) ** 2
    )
    return torch.stack([low, high], dim=1).float()


def joined(pieces):
    """Sources and mixture of all pieces."""
    sources, mix = zip(*pieces, strict=True)
    return torch.cat(sources), torch.cat(mix)
