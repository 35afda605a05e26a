"""The keyword networks' benchmark: it measures every network that it is asked for, and counts work rightly."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "kws.py"


@pytest.fixture
def kws(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    yield importlib.import_module("kws")
    sys.modules.pop("kws")


def test_a_short_run_writes_tables_that_a_readme_can_hold(tmp_path):
    command = [sys.executable, str(SCRIPT), "--models", "mamba_mfcc_small", "keyword_cnn"]
    command += ["--lengths", "1", "2", "--rounds", "1", "--threads", "1", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "kws.json").read_text())
    assert {"processor", "torch", "date", "command"} <= set(result["machine"])
    assert result["models"]["mamba_mfcc_small"]["parameters"] == 268259
    assert set(result["clip_lengths"]) == {"1", "2"}
    assert all(row["median"] <= row["p95"] for row in result["latency"]["1"].values())
    assert (tmp_path / "kws.png").stat().st_size > 10_000
    document = tmp_path / "README.md"
    names = ("latency", "lengths")
    document.write_text(
        "".join(f"<!-- table: kws_{name}.json -->\n<!-- end of table -->\n" for name in names)
    )
    command = [sys.executable, str(SCRIPT.parent / "tables.py"), "--root", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
    assert document.read_text().count("| keyword_cnn |") == 2


def test_the_work_of_a_mamba_network_is_what_its_layers_add_up_to(kws):
    frames, d, inner, states, rank, classes = 63, 64, 128, 16, 4, 35
    block = d * 2 * inner + inner * (rank + 2 * states) + rank * inner + inner * d
    block += inner * (3 * states + 4)
    head = d * d // 2 + d // 2 * classes
    expected = frames * (40 * d + 8 * block) + head
    assert kws.multiply_accumulates("mamba_mfcc_small") == expected


def test_twice_the_audio_is_twice_the_work_but_for_the_classifier(kws):
    one, two = (kws.multiply_accumulates("mamba_mfcc_small", seconds) for seconds in (8, 16))
    assert two / one == pytest.approx(2, rel=0.01)


def test_claims_are_judged_by_the_measured_figures(kws):
    result = {
        "models": {"mamba_mel_small": {}, "retnet": {}},
        "latency": {1: {"mamba_mel_small": {"median": 2.0}, "retnet": {"median": 3.0}}},
        "clip_lengths": {
            30: {"mamba_mel_small": {"bytes": 100}, "retnet": {"bytes": 100}},
            60: {"mamba_mel_small": {"bytes": 200}, "retnet": {"bytes": 400}},
        },
    }
    claims = kws.check_claims(result)
    assert claims["memory_growth"] == pytest.approx({"mamba_mel_small": 1, "retnet": 2})
    assert claims["faster_than"] == {"mamba_mel_small": ["retnet"]}


def test_percentiles_are_values_that_were_measured(kws):
    values = list(range(1, 101))
    assert kws.percentile(values, 0.95) == 95 and kws.percentile([3.0], 0.95) == 3.0
