"""A recogniser of a few thousand parameters, trained for two epochs on noise, as a user trains it."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).parents[2]
RATE = 16000
# Blank, start, end, space and the letters of the texts below.
TEXT_UNITS = 4 + len(set("onetwothreefour"))


def write_noise(path, seconds, seed, rate=RATE, channels=1):
    """Write noise that swells and fades, so that frames differ."""
    random = np.random.default_rng(seed)
    samples = round(seconds * rate)
    swell = np.sin(np.linspace(0, 9 * seconds, samples))[:, None]
    soundfile.write(path, 0.1 * swell * random.standard_normal((samples, channels)), rate)
    return path


@pytest.fixture(scope="session")
def audio(tmp_path_factory):
    """Eight files of 0.4 to 2.5 s, and lists of them."""
    folder = tmp_path_factory.mktemp("audio")
    texts = ["one two", "two three", "three", "four one"]
    rows = []
    for index in range(8):
        write_noise(folder / f"{index}.wav", 0.4 + 0.3 * index, index)
        rows.append({"path": f"{index}.wav", "text": texts[index % 4], "id": f"utterance-{index}"})
    for name, part in (("train", rows), ("valid", rows[4:]), ("test", rows[2:])):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(part)
    return folder


@pytest.fixture(scope="session")
def trained(audio, tmp_path_factory):
    """The output folder of a run; tests that change it take `run`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "train_CTC.py", "hparams/CTC/conmamba_debug.yaml"]
    command += ["--noprogressbar", "--output_folder", str(folder), "--number_of_epochs", "2"]
    # at the usual rate, training on noise makes all frames alike
    command += ["--lr_model", "1e-5"]
    command += ["--train_manifest", str(audio / "train.csv")]
    command += ["--valid_manifest", str(audio / "valid.csv")]
    command += ["--test_manifests", f"[{audio / 'test.csv'}]"]
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT / "recipes" / "LibriSpeech" / "ASR",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for file in folder.glob("save/CKPT*/model.ckpt"):
        weights = torch.load(file, weights_only=True)
        # so few steps teach no more than silence: a random last layer gives texts to compare
        output, bias = weights["ctc_lin.w.weight"], weights["ctc_lin.w.bias"]
        output.copy_(torch.randn(output.shape, generator=torch.Generator().manual_seed(0)))
        # start and end of a sentence, and what is past the units
        bias[[1, 2, *range(TEXT_UNITS, len(bias))]] = -100
        torch.save(weights, file)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run in another folder."""
    return shutil.copytree(trained, tmp_path / "moved run")
