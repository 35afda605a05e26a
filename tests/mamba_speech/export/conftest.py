"""Runs of every task, written once."""

import pytest

from tests.support.run_folders import write_task_runs


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    """Folders of runs by name; nothing may be written into them."""
    return write_task_runs(tmp_path_factory.mktemp("runs"))
