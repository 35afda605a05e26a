"""The scan's benchmark runs from end to end, compares what it times, and says what is wrong."""

import json
import math
import sys
import time

import pytest
import torch

from modules.ssm.cpu import refusal
from tests.support.benchmarks import run

TABLES = {f"scan_{part}.json" for part in ("conditions", "speed", "rates", "bidirectional", "conv")}
SHORT = ["--shapes", "1x20x8x4", "--rounds", "1", "--threads", "1"]


@pytest.mark.skipif(refusal() is not None, reason=f"no compiled kernels: {refusal()}")
def test_every_table_is_measured_compared_and_written(load, tmp_path, capsys):
    options = ["--backends", "cpu,torch,naive,mambapy", "--out", str(tmp_path)]
    assert load("scan").main([*SHORT, *options]) == 0
    shown = capsys.readouterr()
    assert {p.name for p in tmp_path.iterdir()} == TABLES | {"scan.json", "scan.png"}
    result = json.loads((tmp_path / "scan.json").read_text())
    assert {"processor", "cores", "load_average", "torch", "date", "command"} <= set(
        result["machine"]
    )
    speed = {(r["pass"], r["backend"]): r for r in result["speed"]}
    backends = {"cpu", "torch", "naive"} | {r["backend"] for r in result["speed"]}
    assert len(speed) == 2 * len(backends)
    assert ("mambapy" in backends) != ("mambapy is not installed" in shown.err)
    for row in speed.values():
        assert 0 < row["least_seconds"] <= row["seconds"] and row["worst_error"] < 1e-4
    for name in TABLES:
        table = json.loads((tmp_path / name).read_text())
        assert all(list(row) == list(table[0]) for row in table)
    for line in json.loads((tmp_path / "scan_speed.json").read_text()):
        assert line["pass"] in shown.out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--shapes", "8x250x512"], "BATCHxFRAMESxCHANNELSxSTATES"),
        (["--shapes", "8x0x512x16"], "0 is not 1 or more"),
        (["--backends", "cpu,tensorflow"], "'tensorflow' is none of cpu, torch, naive, mambapy"),
        (["--out", __file__], "cannot be a folder"),
    ],
)
def test_a_wrong_option_is_named(load, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        load("scan").main(arguments)
    assert message in f"{capsys.readouterr().err} {stopped.value}"


@pytest.mark.exhaustive
@pytest.mark.skipif(refusal() is not None, reason=f"no compiled kernels: {refusal()}")
def test_the_script_runs_as_a_user_runs_it(tmp_path):
    done = run("scan.py", *SHORT, "--backends", "cpu,torch", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == TABLES | {"scan.json", "scan.png"}


def test_a_gradient_that_is_no_number_is_the_worst_error_and_a_zero_one_is_none(load):
    worst_error = load("scan").worst_error
    one, zero = torch.ones(2), torch.zeros(2)
    assert worst_error([one, one * math.nan], [one.double(), one.double()]) == math.inf
    assert worst_error([one, zero], [one.double(), zero.double()]) == 0
    assert abs(worst_error([one, 1.5 * one], [one.double(), one.double()]) - 0.5) < 1e-6


def test_rounds_go_around_all_functions_and_a_budget_ends_them(load):
    interleaved, order = load("measure").interleaved, []

    def slow():
        order.append("slow")
        time.sleep(0.02)

    both = {"slow": slow, "quick": lambda: order.append("quick")}
    times = interleaved(both, 3, shortest=0)
    assert order == ["slow", "quick"] * 4  # one round untimed
    assert len(times["slow"]) == 3 and min(times["slow"]) >= 0.02
    assert len(interleaved({"slow": slow}, 9, budget=0.05, shortest=0)["slow"]) < 6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak memory")
def test_peak_memory_is_what_the_work_allocated_whatever_the_set_up_took(load):
    peak_memory = load("measure").peak_memory
    used = peak_memory("bytearray(2**26)", "block = bytearray(2**25)")
    assert abs(used - 2**25) < 2**22
    with pytest.raises(RuntimeError, match="SyntaxError"):
        peak_memory("", "this is no Python")
