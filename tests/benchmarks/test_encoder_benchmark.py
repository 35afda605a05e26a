"""The encoders' benchmark: it measures what it names, and says what it could not measure."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "encoder.py"


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=300
    )


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module


def test_a_short_run_measures_every_encoder_and_writes_tables_that_the_readme_can_hold(tmp_path):
    done = run("--lengths", 1, "--training", "2x1", "--rounds", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "encoder.json").read_text())
    assert {"processor", "threads", "torch", "date", "command"} <= set(result["machine"])
    assert [row["audio"] for row in result["forward"]] == [1]
    for row in result["forward"]:
        assert set(row["seconds"]) == {"ConMamba", "ceiling", "RelPosMHAXL", "RoPEMHA"}
        assert all(seconds > 0 for seconds in row["seconds"].values())
    assert all(len(row["bytes"]) == 3 for row in result["memory"])
    assert result["difference_from_the_reference_backend"] < 1e-4
    assert (tmp_path / "encoder.png").stat().st_size > 10_000
    document = tmp_path / "README.md"
    names = ("forward", "speedup", "memory", "training")
    document.write_text(
        "".join(f"<!-- table: encoder_{n}.json -->\n<!-- end of table -->\n" for n in names)
    )
    command = [sys.executable, str(SCRIPT.parent / "tables.py"), "--root", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
    assert document.read_text().count("\n| 1 |") == 3 and "\n| 2 x 1 s |" in document.read_text()


def test_a_batch_that_is_none_is_refused_by_name(load, capsys):
    with pytest.raises(SystemExit):
        load("encoder").options_of(["--training", "4*15"])
    assert "4*15 is not utterances x seconds" in capsys.readouterr().err


def test_goals_are_compared_with_the_ratio_of_the_measured_times(load):
    def row(seconds, relative, rotary):
        times = {"ConMamba": seconds, "ceiling": seconds / 2}
        times |= {"RelPosMHAXL": relative, "RoPEMHA": rotary}
        return {"audio": 60, "seconds": {n: t for n, t in times.items() if t is not None}}

    rows = [row(1.0, 4.5, 0.9), row(1.0, 3.9, 1.1), row(1.0, None, 1.1)]
    table = load("encoder_tables").speedup_table({"forward": rows})
    assert [r["goal of RelPosMHAXL"] for r in table] == [
        "at least 4: met",
        "at least 4: missed",
        "at least 4",
    ]
    assert [r["goal of RoPEMHA"] for r in table] == ["at least 1: missed", *["at least 1: met"] * 2]
    assert [r["RelPosMHAXL / ceiling"] for r in table] == ["9.00", "7.80", "-"]
    forward = load("encoder_tables").forward_table({"forward": rows})
    assert forward[0]["real-time factor of ConMamba"] == "0.0167"
    assert forward[2]["RelPosMHAXL, ms"] == "-"


@pytest.mark.parametrize(("share", "verdict"), [(0.24, "met"), (0.26, "missed")])
def test_memory_at_two_minutes_is_held_to_a_quarter(load, share, verdict):
    used = {"ConMamba": share * 1e9, "RelPosMHAXL": 1e9, "RoPEMHA": 1e8}
    rows = load("encoder_tables").memory_table({"memory": [{"audio": 120, "bytes": used}]})
    assert rows[0]["goal"] == f"at most 0.25: {verdict}"
    assert rows[0]["ConMamba / RelPosMHAXL"] == f"{share:.3f}"
