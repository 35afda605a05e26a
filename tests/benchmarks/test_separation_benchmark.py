"""The benchmark of separation: networks of like size, forecasts that hold, cells that are left out by name."""

import json
import sys

import pytest
import torch

from tests.support.benchmarks import fill_readme, run
from tests.support.recipes import ROOT

PUBLISHED = json.loads((ROOT / "tests" / "model_sizes.json").read_text())["models"]


@pytest.mark.exhaustive
def test_a_short_run_measures_what_it_is_asked_for_and_writes_tables_that_a_readme_can_hold(
    tmp_path,
):
    networks = ("Mamba-TasNet", "SepFormer, fused attention")
    done = run(
        *(
            "separation.py",
            "--size",
            "mini",
            "--networks",
            *networks,
            "--lengths",
            1,
            "--rounds",
            1,
        ),
        *("--threads", 1, "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "separation.json").read_text())
    assert {"processor", "threads", "torch", "date", "command"} <= set(result["machine"])
    cells = result["cells"]
    assert [(c["pass"], c["audio"], c["network"]) for c in cells] == [
        (which, 1, name) for which in ("inference", "training step") for name in networks
    ]
    assert all(c["seconds"] > 0 and c["calls"] and c["skipped"] is None for c in cells)
    if sys.platform == "linux":
        inference, training = (c["bytes"] for c in cells if c["network"] == networks[0])
        assert 0 < inference < training
    assert all(error < 1e-4 for error in result["differences"].values())
    assert all(row["difference_from_the_whole"] < 1e-4 for row in result["stream"])
    assert (tmp_path / "separation.png").stat().st_size > 10_000
    names = ("conditions", "networks", "time", "memory", "stream")
    text = fill_readme(tmp_path, [f"separation_{name}" for name in names])
    assert text.count("\n| training step | 1 |") == 2


@pytest.mark.parametrize("size", [pytest.param("XS", marks=pytest.mark.exhaustive), "mini"])
def test_the_networks_of_a_size_differ_by_less_than_a_tenth_in_parameters(load, size):
    models = load("separation_models")
    counts = [models.parameters(name, size) for name in (*models.NAMES, models.CAUSAL)]
    assert max(counts) < 1.1 * counts[0] and min(counts) > counts[0] / 1.1
    # both of SepFormer's attentions have the same weights
    assert counts[2] == counts[3]


def test_the_size_xs_is_the_published_one(load):
    models = load("separation_models")
    for name, file in ((models.TASNET, "mambatasnet_XS"), (models.DUAL_PATH, "dpmamba_XS")):
        published = PUBLISHED[f"Mamba-TasNet/WSJ0Mix/{file}.yaml"]["total_trainable"]
        assert models.parameters(name, "XS") == published


def test_fused_attention_changes_neither_sepformers_output_nor_its_gradients(load):
    models = load("separation_models")
    plain, fused = (models.build(name, "mini") for name in (models.SEPFORMER, models.FUSED))
    mix = models.mixture(0.3)
    outputs, gradients = [], []
    for model in (plain, fused):
        outputs.append(model.train()(mix))
        outputs[-1].square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert torch.allclose(*outputs, rtol=1e-4, atol=1e-6)
    for one, other in zip(*gradients, strict=True):
        assert float((one - other).abs().max()) <= 1e-4 * float(one.abs().max()) + 1e-9


@pytest.mark.parametrize(("linear", "quadratic"), [(3.0, 0.0), (0.0, 2.0), (1.5, 0.25)])
def test_two_lengths_foretell_linear_and_quadratic_growth(load, linear, quadratic):
    def cost(seconds):
        return linear * seconds + quadratic * seconds**2

    measured = [(2, cost(2)), (4, None), (16, cost(16))]
    assert load("separation").predicted(measured, 60) == pytest.approx(cost(60))


@pytest.mark.parametrize(
    ("seconds", "used", "reason"),
    [(1.0, 1e6, None), (30.0, 1e6, "budget"), (1.0, 1e9, "memory")],
)
def test_a_cell_over_the_budget_or_the_memory_is_left_out_and_says_so(load, seconds, used, reason):
    earlier = [{"audio": 4, "seconds": seconds, "bytes": used}]
    given = load("separation").why_not({"audio": 16}, earlier, budget=100, memory=3 * 10**9)
    assert (given and given.partition(":")[0]) == reason


def test_a_pass_leaves_out_what_goes_over_the_budget_and_measures_the_rest(load, capsys):
    separation = load("separation")
    names = load("separation_models").NAMES[:1]
    options = separation.options_of(["--lengths", "1", "--rounds", "1", "--size", "mini"])
    earlier = [{"audio": 0.5, "seconds": 1e6, "bytes": 1.0, "network": names[0]}]
    (row,) = separation.measure_length("inference", 1, {names[0]: None}, earlier, options)
    assert row["skipped"].startswith("budget") and row["seconds"] is None
    assert f"{names[0]}, inference at 1 s, left out: budget" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_a_call_that_asks_for_more_memory_than_it_may_is_left_out_and_no_failure(load):
    if sys.platform != "linux":
        pytest.skip("memory is measured on Linux only")
    separation = load("separation")
    options = separation.options_of(["--memory", "2.5", "--size", "mini", "--threads", "1"])
    used, reason = separation.measure_memory("SepFormer", "training step", 60, options)
    assert used is None and reason == "memory: one call asked for more than 2.5 GB"


def test_tables_give_ratios_of_measured_cells_and_name_those_that_were_left_out(load):
    tables = load("separation_tables")
    names = load("separation_models").NAMES

    def cell(name, seconds, skipped=None):
        row = {"pass": "inference", "audio": 60, "network": name, "seconds": seconds}
        return row | {"bytes": seconds and 1e6 * seconds, "skipped": skipped}

    cells = [cell(names[0], 2.0), cell(names[1], 4.0), cell(names[3], 3.0)]
    cells.insert(2, cell(names[2], None, "memory: about 30 GB are needed"))
    (row,) = tables.time_table({"cells": cells})
    assert row["SepFormer, s"] == "out of memory" and row["SepFormer / Mamba-TasNet"] == "-"
    assert row["SepFormer, fused attention / Mamba-TasNet"] == "1.50"
    assert row["SepFormer, fused attention / DPMamba"] == "0.75"
    (row,) = tables.memory_table({"cells": cells})
    assert row["DPMamba, MB"] == "4" and row["SepFormer, MB"] == "out of memory"
