"""Small mixtures, and the separation recipe's scripts run on them."""

import sys

import pytest

from tests.support import recipes
from tests.support.separation import RECIPE, command_line, write_speakers, write_tree

# a figure takes longer than the rest of a small run
QUICK = {"n_audio_to_save": 0, "metrics": "[si-snr]"}


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's scripts as modules, by name."""
    with recipes.scripts(monkeypatch, RECIPE) as load:
        yield load


@pytest.fixture
def run(recipe, tree, singles, tmp_path, monkeypatch):
    """Run train.py within this process; gives the output folder."""

    def train(name, *flags, **options):
        paths = {"data_folder": tree, "base_folder_dm": singles, "output_folder": tmp_path / "run"}
        options = paths | QUICK | options
        monkeypatch.setattr(sys, "argv", ["train.py", *command_line(name, *flags, **options)])
        recipe("train").main()
        return options["output_folder"]

    return train


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Mixtures of two speakers; tests must not alter them."""
    return write_tree(tmp_path_factory.mktemp("mixtures"))


@pytest.fixture(scope="session")
def singles(tmp_path_factory):
    """Recordings of single speakers for dynamic mixing; tests must not alter them."""
    return write_speakers(tmp_path_factory.mktemp("singles"))


@pytest.fixture(scope="session")
def trained(tree, tmp_path_factory):
    """Output folder of one epoch of the debug recipe; tests must not alter it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = QUICK | {"data_folder": tree, "output_folder": folder, "number_of_epochs": 1}
    recipes.call_main(RECIPE, "train", *command_line("mambatasnet_debug", **options))
    return folder
