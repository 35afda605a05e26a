"""A spoken corpus of a minute, and the recipe's script run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.spoken import generate_librispeech

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
SPLITS = {
    "train_splits": "[train-spoken]",
    "dev_splits": "[dev-spoken]",
    "test_splits": "[test-spoken]",
}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """A corpus in LibriSpeech's layout: 40 s of training speech, 10 s each to validate and test."""
    folder = tmp_path_factory.mktemp("spoken")
    generate_librispeech(
        folder / "corpus", hours=40 / 3600, dev_minutes=1 / 6, test_minutes=1 / 6, workers=2
    )
    return folder / "corpus"


@pytest.fixture(scope="session")
def train_ctc():
    """Run train_CTC.py in its folder; gives the finished process, its output in `stdout`."""

    def run(yaml, *flags, launcher=(sys.executable,), check=True, wait=True, **options):
        command = [*launcher, "train_CTC.py", f"hparams/CTC/{yaml}.yaml", "--noprogressbar", *flags]
        command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
        # the scripts import the installed packages; here, those of this tree
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command,
            cwd=RECIPE,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if not wait:
            return process
        process.output, _ = process.communicate(timeout=300)
        assert not check or process.returncode == 0, process.output[-3000:]
        return process

    return run
