"""Runs of every task, with weights that were never trained, and two recordings."""

import pytest

from tests.support.run_folders import write_task_runs, write_voices


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of runs by name: ctc, s2s, lm, keywords, speakers, windows and stream; tests must not alter them."""
    return write_task_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    """Paths of two recordings of two voices."""
    return write_voices(tmp_path_factory.mktemp("voices"))
