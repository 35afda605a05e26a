"""A corpus of harmonic voices, and the speaker recipe's scripts run on it."""

import numpy as np
import pytest
import soundfile
import torch

from tests.support.recipes import scripts
from tests.support.speaker_networks import save_teacher
from tests.support.speakers import RECIPE, SMALL, train_here, write_corpus, write_voice_encoder


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's scripts as modules, their folder being where Python looks first."""
    with scripts(monkeypatch, RECIPE) as load:
        yield load


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    """Five voices to train and validate, two to test; tests must not alter it."""
    return write_corpus(tmp_path_factory.mktemp("voices") / "corpus")


@pytest.fixture(scope="session")
def trained(voices, tmp_path_factory):
    """Output folder of an encoder that was trained for one epoch; tests must not alter it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = {"data_folder": voices, "output_folder": folder, "number_of_epochs": 1}
    return train_here("debug", small=SMALL, **SMALL, **options)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Folders of a noise and of a room's response, at other rates than the voices."""
    folder, random = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for name, sound, rate in (
        ("noise", 0.1 * random.standard_normal(4000), 8000),
        ("rooms", np.exp(-np.arange(2000) / 200) * random.standard_normal(2000), 44100),
    ):
        (folder / name).mkdir()
        soundfile.write(folder / name / "one.wav", sound, rate)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """Folder of a tiny random WavLM, the same every time; tests must not alter it."""
    folder = tmp_path_factory.mktemp("teacher") / "wavlm"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_teacher("wavlm-layer", folder)
    return folder


@pytest.fixture(scope="session")
def voice_encoder(tmp_path_factory):
    """Where a Resemblyzer of random weights, the same every time, is installed."""
    folder = tmp_path_factory.mktemp("packages")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_voice_encoder(folder / "resemblyzer")
    return folder


@pytest.fixture
def run(voices, teacher, voice_encoder, tmp_path, monkeypatch):
    """Run the script of a YAML on the voices within this process; gives the output folder."""
    monkeypatch.syspath_prepend(str(voice_encoder))

    def train(name, *flags, **options):
        small = SMALL | {"ssl_source": teacher}
        if not name.endswith("resemblyzer"):
            small |= {"teacher": teacher}
        options = small | {"data_folder": voices, "output_folder": tmp_path / "run"} | options
        return train_here(name, *flags, small=small, **options)

    return train
