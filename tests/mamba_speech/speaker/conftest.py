"""Recordings of two voices, one without a voice, and a run."""

import numpy as np
import pytest
import soundfile

from tests.support.verification import RATE, write_voice


@pytest.fixture
def run(speaker_runs):
    return str(speaker_runs / "run")


@pytest.fixture
def voices(tmp_path):
    """Two voices in two recordings each, of the same names, in folders with a space."""
    return {
        (voice, name): str(
            write_voice(tmp_path / f"voice {voice}" / f"{name}.wav", voice, seed=seed)
        )
        for voice in (1, 2)
        for seed, name in enumerate("ab")
    }


@pytest.fixture
def silent(tmp_path):
    path = tmp_path / "silent file.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    return str(path)
