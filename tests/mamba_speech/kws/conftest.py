"""Trained keyword spotters."""

import pytest

from tests.support.keywords import TASK, train_here, write_corpus


@pytest.fixture(scope="session")
def spotters(tmp_path_factory):
    """Output folders of a causal and an ordinary network that were trained for one epoch; tests must not alter them."""
    folder = tmp_path_factory.mktemp("spotters")
    options = TASK | {"data_folder": write_corpus(folder / "corpus"), "number_of_epochs": 1}
    for kind in ("causal", "whole"):
        train_here("debug", **options, causal=kind == "causal", output_folder=folder / kind)
    return folder
