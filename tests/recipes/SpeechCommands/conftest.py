"""A corpus of tones, and the keyword recipe's scripts run on it."""

import pytest

from tests.support.keywords import RECIPE, SMALL, TASK, train_here, write_corpus
from tests.support.recipes import scripts


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's scripts as modules, their folder being where Python looks first."""
    with scripts(monkeypatch, RECIPE) as load:
        yield load


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """Three words by nine speakers; tests must not alter them."""
    return write_corpus(tmp_path_factory.mktemp("tones") / "corpus")


@pytest.fixture(scope="session")
def trained(tones, tmp_path_factory):
    """Output folder of a network that was trained for one epoch; tests must not alter it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = TASK | {"data_folder": tones, "output_folder": folder, "number_of_epochs": 1}
    return train_here("debug", **options)


@pytest.fixture
def run(tones, tmp_path):
    """Run train.py on the tones within this process; gives the output folder."""

    def train(name, *flags, **options):
        options = TASK | {"data_folder": tones, "output_folder": tmp_path / "run"} | options
        return train_here(name, *flags, small=SMALL, **options)

    return train
