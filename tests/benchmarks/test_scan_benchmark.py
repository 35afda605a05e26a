"""The scan's benchmark runs from end to end, compares what it times, and says what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modules.ssm.cpu import refusal

ROOT = Path(__file__).parents[2]
TABLES = {f"scan_{part}.json" for part in ("conditions", "speed", "rates", "bidirectional", "conv")}


def run(script, *arguments, folder=ROOT / "benchmarks"):
    paths = [str(ROOT), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, str(folder / script), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.mark.skipif(refusal() is not None, reason=f"no compiled kernels: {refusal()}")
def test_every_table_is_measured_compared_and_written(tmp_path):
    options = ["--shapes", "1x20x8x4", "--rounds", 1, "--threads", 1, "--out", tmp_path]
    done = run("scan.py", *options, "--backends", "cpu,torch,naive,mambapy")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == TABLES | {"scan.json", "scan.png"}
    result = json.loads((tmp_path / "scan.json").read_text())
    assert {"processor", "cores", "load_average", "torch", "date", "command"} <= set(
        result["machine"]
    )
    speed = {(r["pass"], r["backend"]): r for r in result["speed"]}
    backends = {"cpu", "torch", "naive"} | {r["backend"] for r in result["speed"]}
    assert len(speed) == 2 * len(backends)
    assert ("mambapy" in backends) != ("mambapy is not installed" in done.stderr)
    for row in speed.values():
        assert 0 < row["least_seconds"] <= row["seconds"] and row["worst_error"] < 1e-4
    for name in TABLES:
        table = json.loads((tmp_path / name).read_text())
        assert all(list(row) == list(table[0]) for row in table)
    for line in json.loads((tmp_path / "scan_speed.json").read_text()):
        assert line["pass"] in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--shapes", "8x250x512"], "BATCHxFRAMESxCHANNELSxSTATES"),
        (["--shapes", "8x0x512x16"], "0 is not 1 or more"),
        (["--backends", "cpu,tensorflow"], "'tensorflow' is none of cpu, torch, naive, mambapy"),
        (["--out", __file__], "can not be a folder"),
    ],
)
def test_a_wrong_option_is_named(arguments, message):
    done = run("scan.py", *arguments)
    assert done.returncode != 0 and message in done.stderr


ERRORS = """
import math, torch
from scan import worst_error
one, zero = torch.ones(2), torch.zeros(2)
assert worst_error([one, one * math.nan], [one.double(), one.double()]) == math.inf
assert worst_error([one, zero], [one.double(), zero.double()]) == 0
assert abs(worst_error([one, 1.5 * one], [one.double(), one.double()]) - 0.5) < 1e-6
"""


def test_a_gradient_that_is_no_number_is_the_worst_error_and_a_zero_one_is_none(tmp_path):
    (tmp_path / "probe.py").write_text(ERRORS)
    done = run("probe.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr


MEASURES = """
import time
from measure import interleaved, peak_memory
order = []
def slow():
    order.append("slow")
    time.sleep(0.02)
times = interleaved({"slow": slow, "quick": lambda: order.append("quick")}, 3, shortest=0)
assert order == ["slow", "quick"] * 4, order  # one round untimed
assert len(times["slow"]) == 3 and min(times["slow"]) >= 0.02
assert len(interleaved({"slow": slow}, 50, budget=0.05, shortest=0)["slow"]) < 10
print(peak_memory("import torch; torch.ones(2**24)", "x = torch.ones(2**23)"))
try:
    peak_memory("", "this is no Python")
except RuntimeError as error:
    assert "SyntaxError" in str(error)
else:
    raise AssertionError("a failing child went unnoticed")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak memory")
def test_rounds_go_around_all_functions_and_peak_memory_is_what_was_allocated(tmp_path):
    (tmp_path / "probe.py").write_text(MEASURES)
    done = run("probe.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert abs(int(done.stdout) - 2**25) < 2**22
