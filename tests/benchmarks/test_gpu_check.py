"""What of the check on a GPU can be tried without one."""

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import build, kernels, parity, prepare, speed, train
from benchmarks.gpu.report import Report
from modules.ssm import selective_scan_fn

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
# laid out like the distributions' setup.py
SETUP = """
cc_flag = []
cc_flag.append("-gencode")
cc_flag.append("arch=compute_80,code=sm_80")
cc_flag.append("-gencode")
cc_flag.append("arch=compute_90,code=sm_90")
extra_compile_args = {"cxx": ["-O3"], "nvcc": ["-O3", "--use_fast_math"] + cc_flag}
extension = dict(name="selective_scan_cuda", extra_compile_args=extra_compile_args)
"""


def check(*arguments, **environment):
    """Run the script."""
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu_check.sh"), *map(str, arguments)],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
    )


def test_without_a_card_the_message_says_what_to_do(tmp_path):
    done = check("--out", tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert "no CUDA device: run this on a machine with a card, or pass --device cpu" in line


def test_unknown_stages_and_missing_values_are_refused_with_the_usage():
    done = check("sped")
    assert done.returncode == 2 and "'sped'" in done.stderr and "prepare" in done.stderr
    done = check("speed", "--out")
    assert done.returncode == 2 and "--out needs a value" in done.stderr
    done = check("build", PYTHON="no-such-python")
    assert done.returncode == 1 and "no no-such-python here" in done.stderr


def test_an_interpreter_without_torch_is_refused_before_any_stage(tmp_path):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    done = check("prepare", "--out", tmp_path / "out", PYTHON=str(bare))
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert f"{bare} has no torch" in line


def test_a_narrowed_setup_compiles_for_the_cards_architecture_alone(tmp_path):
    setup = tmp_path / "setup.py"
    setup.write_text(build.narrow(SETUP, "selective_scan_cuda", (12, 0)))
    flags = runpy.run_path(str(setup))["extra_compile_args"]["nvcc"]
    assert flags[-2:] == ["-gencode", "arch=compute_120,code=sm_120"]
    assert sum("code=" in flag for flag in flags) == 1 and "--use_fast_math" in flags


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('name="selective_scan_cuda"', 'name="other"', "no extension selective_scan_cuda"),
        ("+ cc_flag", "", "cc_flag"),
    ],
)
def test_a_setup_that_looks_different_is_named_and_not_built(old, new, message):
    with pytest.raises(build.BuildError, match=message):
        build.narrow(SETUP.replace(old, new), "selective_scan_cuda", (9, 0))


@pytest.mark.parametrize("package", build.PACKAGES, ids=lambda package: package.name)
def test_the_carried_distributions_are_laid_out_as_expected(package, tmp_path):
    if not (prepare.CARRIED / "sdists").is_dir():
        pytest.skip("no carried distributions: benchmarks/gpu_check.sh prepare has not run")
    source = build.unpack(package, tmp_path / "source")
    narrowed = build.narrow((source / "setup.py").read_text(), package.extension, (9, 0))
    ast.parse(narrowed)
    build.lay_out(package, source, tmp_path / "site")
    known = {path.stem for path in (tmp_path / "site").rglob("*.py")} | {"__init__"}
    for path in (tmp_path / "site").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name):
                # whatever of its own package a file imports is laid out too
                assert node.module.split(".")[-1] in known, f"{path.name} imports {node.module}"


def test_a_row_is_on_disk_as_soon_as_it_is_known(tmp_path):
    report = Report(tmp_path, "speed", "Speed", CPU, "the command")
    report.add(backend="torch", ms="1.5")
    report.note("a note")
    report.add(backend="cpu", ms="0.5")
    rows = json.loads((tmp_path / "speed.json").read_text())
    assert rows == [{"backend": "torch", "ms": "1.5"}, {"backend": "cpu", "ms": "0.5"}]
    text = (tmp_path / "speed.md").read_text()
    assert "| cpu | 0.5 |" in text and "- a note" in text and "the command" in text


@pytest.mark.parametrize("operation", parity.CHECKS)
def test_parity_passes_what_is_right_and_fails_what_is_wrong(operation, monkeypatch):
    make, functions, *rest = parity.CHECKS[operation]

    def wrong(*arguments, **options):
        *outputs, last = functions["torch"](*arguments, **options)
        return *outputs, last * 1.1

    def broken(*arguments, **options):
        raise RuntimeError("out of registers")

    contestants = {"torch": functions["torch"], "wrong": wrong, "broken": broken}
    monkeypatch.setitem(parity.CHECKS, operation, (make, contestants, *rest))
    rows = parity.check(operation, torch.float32, CPU, ((2, 4, 3, 2),))
    results = {row["backend"]: row["result"] for row in rows}
    assert results["torch"] == "pass"
    # the last state's own error, or a gradient's through it
    assert results["wrong"].startswith(("FAIL: state", "FAIL: gradient"))
    assert "out of registers" in results["broken"]


def test_a_number_that_is_none_is_the_largest_error():
    assert parity.error(torch.tensor([1.0, float("nan")]), torch.ones(2).double()) == float("inf")
    assert parity.error(torch.tensor([2.0, 4.5]), torch.tensor([2.0, 4.0]).double()) == 0.125


def test_every_operation_dtype_and_option_of_the_contract_is_in_the_grid():
    for shapes in (parity.SCAN_SHAPES, parity.CONV_SHAPES):
        grid = list(parity.cases(shapes, tuple(parity.TOLERANCES)))
        single = {case[2:] for case in grid if case[0] == shapes[0] and case[1] == torch.float32}
        assert len(single) == 8
        assert {case[0] for case in grid} == set(shapes) and any(s[1] == 1 for s in shapes)
        assert {case[1] for case in grid} == set(parity.TOLERANCES)


def test_the_yardsticks_layout_and_flips_compute_the_same_function():
    shape = (2, 7, 4, 3)
    first, second = (kernels.scan_tensors(shape, torch.float32, CPU) for _ in range(2))
    pairs = kernels.in_pairs(first, second)
    expected, _ = kernels.BOTH_SCANS["torch"](*pairs.values(), True)
    call, inputs = speed.channel_major(first, second, selective_scan_fn)
    assert torch.allclose(call().transpose(1, 2), expected, atol=1e-5)
    gradients = torch.autograd.grad(call().sum(), inputs)
    assert len(inputs) == len(kernels.leaves(pairs))
    assert all(g.abs().max() > 0 for g in gradients)


def test_a_function_that_raises_is_a_row_and_the_others_are_timed(tmp_path):
    def broken():
        raise RuntimeError("out of registers")

    x = torch.ones(3, requires_grad=True)
    report = Report(tmp_path, "speed", "Speed", CPU, "the command")
    functions = {"a": (lambda: 2 * x, [x]), "b": (broken, [x])}
    speed.add_rows(report, "doubling", (3,), torch.float32, functions, CPU)
    rows = {(row["backend"], row["passes"]): row for row in report.rows}
    for passes in ("forward", "forward + backward"):
        assert float(rows["a", passes]["ms"]) > 0 and not rows["a", passes]["problem"]
        assert "out of registers" in rows["b", passes]["problem"] and not rows["b", passes]["ms"]


def test_a_training_runs_figures_are_read_from_its_log(tmp_path):
    assert train.read_run(tmp_path)["steps"] == ""
    line = (
        "epoch: {}, lr: 1.2e-04, steps: {} - train loss: {}, train seconds: {} - valid loss: 3.9\n"
    )
    (tmp_path / "train_log.txt").write_text(
        line.format(1, 10, 4.5, 20.0)
        + line.format(2, 20, 3.5, 5.0)
        + "test set: test-spoken - test loss: 3.4, test WER: 9.5e+01, test CER: 60.0\n"
    )
    facts = train.read_run(tmp_path)
    # the first epoch, in which kernels are compiled, is left out of the rate
    assert facts["steps"] == 20 and facts["steps_per_second"] == 2.0
    assert (facts["first_loss"], facts["last_loss"]) == (4.5, 3.5)
    assert facts["test_WER"] == 95.0


@pytest.mark.exhaustive
def test_the_speed_stage_runs_on_the_cpu_and_writes_its_table(tmp_path):
    done = check("speed", "--device", "cpu", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "speed.json").read_text())
    assert {"bidirectional scan", "BiMamba block"} == {row["operation"] for row in rows}
    assert all(float(row["ms"]) > 0 for row in rows)
