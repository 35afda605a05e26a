"""The comparison of systems as a user calls it."""

import json

import pytest

from training import compare


@pytest.fixture
def compare_runs(tmp_path):
    """Compare, and give the rows by test set and system, or the status if it is not 0."""

    def run(*arguments, resamples=200):
        out = tmp_path / "out"
        status = compare.main([*arguments, "--out", str(out), "--resamples", str(resamples)])
        if status:
            return status
        rows = json.loads((out / "compare.json").read_text())["rows"]
        return {(row["test set"], row["system"]): row for row in rows}

    return run
