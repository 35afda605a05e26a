"""Benchmark scripts as modules of this process."""

import importlib

import pytest
import torch

from tests.support.benchmarks import FOLDER
from tests.support.recipes import forget


@pytest.fixture
def load(monkeypatch):
    """Import one of the folder's files by name; they, and the threads they set, are forgotten afterwards."""
    threads = torch.get_num_threads()
    names = {path.stem for path in FOLDER.glob("*.py")}
    monkeypatch.syspath_prepend(str(FOLDER))
    forget(names)
    yield importlib.import_module
    torch.set_num_threads(threads)
    forget(names)
