"""A corpus of tones in the layout of Speech Commands, the recipe's scripts to run, and what they have trained."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.recipes import command_line, scripts

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "SpeechCommands" / "KWS"
RATE = 16000
# a word is a rise or a fall of pitch, or a steady tone: beginning and end in Hz
WORDS = {"up": (300, 900), "down": (900, 300), "stop": (500, 500)}
# all words of the tones, and nothing else
TASK = {"words": "all", "n_classes": 3, "split": "lists", "other_speech_percentage": 0}
SPEAKERS = [f"{number:08x}" for number in range(9)]


def say(word, speaker, seconds=0.9):
    """A glide of one speaker's timbre with a little noise, (samples,)."""
    random = np.random.default_rng(int(speaker, 16))
    low, high = WORDS[word]
    pitch = np.linspace(low, high, round(seconds * RATE)) * random.uniform(0.85, 1.15)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(random.uniform(0.3, 1) * np.sin(k * phase) / k for k in (1, 2, 3))
    return 0.1 * tone * np.hanning(len(tone)) + 0.002 * random.standard_normal(len(tone))


def write_corpus(folder, words=tuple(WORDS), speakers=SPEAKERS):
    """Word folders, noise, and lists that leave the last two speakers to test and the two before to validate."""
    lists = {"testing_list.txt": speakers[-2:], "validation_list.txt": speakers[-4:-2]}
    for word in words:
        (folder / word).mkdir(parents=True)
        for speaker in speakers:
            sound = say(word, speaker)
            soundfile.write(folder / word / f"{speaker}_nohash_0.wav", sound, RATE, "PCM_16")
    for name, chosen in lists.items():
        lines = [f"{word}/{speaker}_nohash_0.wav\n" for word in words for speaker in chosen]
        (folder / name).write_text("".join(lines))
    (folder / "_background_noise_").mkdir()
    hiss = 0.05 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(folder / "_background_noise_" / "hiss.wav", hiss, RATE, "PCM_16")
    return folder


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """Three words by nine speakers."""
    return write_corpus(tmp_path_factory.mktemp("tones") / "corpus")


@pytest.fixture(scope="session")
def train_kws():
    """Run train.py, or another script of the recipe, in its folder; gives the finished process."""

    def run(yaml, *flags, script="train.py", launcher=(sys.executable,), check=True, **options):
        command = [*launcher, script, f"hparams/{yaml}.yaml", "--noprogressbar", *flags]
        command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
        done = subprocess.run(
            command,
            check=False,
            cwd=RECIPE,
            # the scripts import the installed packages; here, those of this tree
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        done.output = done.stdout
        assert not check or done.returncode == 0, done.output[-3000:]
        return done

    return run


@pytest.fixture(scope="session")
def train_here():
    """Run train.py within this process; gives the output folder."""

    def run(yaml, *flags, small=(), **options):
        path = RECIPE / "hparams" / f"{yaml}.yaml"
        with pytest.MonkeyPatch.context() as patch, scripts(patch, RECIPE) as load:
            arguments = command_line(path, *flags, small=small, **options)
            patch.setattr(sys, "argv", ["train.py", *arguments])
            load("train").main()
        return Path(options["output_folder"])

    return run


@pytest.fixture(scope="session")
def spotters(train_here, tones, tmp_path_factory):
    """Output folders of a causal and an ordinary network that were trained for one epoch; tests must not alter them."""
    folder = tmp_path_factory.mktemp("spotters")
    options = TASK | {"data_folder": tones, "number_of_epochs": 1}
    for kind in ("causal", "whole"):
        train_here("debug", **options, causal=kind == "causal", output_folder=folder / kind)
    return folder
