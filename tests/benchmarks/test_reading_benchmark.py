"""The measurement of reading: all ways read the same samples, and the table tells their ratios."""

import json

from tests.support.benchmarks import fill_readme, run
from tests.support.recipes import ROOT


def test_reading_is_compared_with_the_plain_way_and_another_checkout(tmp_path):
    options = ("--minutes", 1, "--rounds", 1, "--other", ROOT, "--out", tmp_path)
    done = run("reading.py", *options, "--folder", tmp_path / "recordings")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "reading.json").read_text())
    assert row["files"] == len(list((tmp_path / "recordings").iterdir())) > 1
    assert float(row["this / other"]) > 0 and float(row["this / plain"]) > 0
    assert str(tmp_path) not in row["command"]
    assert "this / other" in fill_readme(tmp_path, ["reading"])
