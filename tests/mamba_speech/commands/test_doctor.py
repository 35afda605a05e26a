"""The command doctor: what a machine has, and that it lives where parts are broken."""

import json
import os
import subprocess
import sys

import pytest

from modules.ssm.scan.dispatch import available_backends
from tests.support.recipes import ROOT
from tests.support.run_folders import call


def run(*arguments, **environment):
    """The command in a process of its own; its status and its findings by name."""
    done = subprocess.run(
        [sys.executable, "-m", "mamba_speech", "doctor", "--json", *arguments],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)}


def test_this_machine_is_well_and_each_thing_has_a_line_with_advice():
    status, out, err = call(["doctor"])
    assert status == 0 and err == ""
    lines = out.splitlines()
    names = [line.split()[0] for line in lines]
    assert len(set(names)) == len(names)
    wanted = {"python", "torch", "torchaudio", "speechbrain", "mamba_speech", "cuda", "mps"}
    wanted |= {"cores", "memory", "compiler", "scan", "media", "microphone"}
    assert wanted <= set(names) and all(" -> " in line for line in lines)
    scan = next(line for line in lines if line.startswith("scan"))
    assert f"cpu: {available_backends('cpu')[0]}" in scan


@pytest.mark.exhaustive
def test_without_a_compiler_the_slower_backend_is_named_and_nothing_is_broken(tmp_path):
    status, found = run(CC=str(tmp_path / "no compiler"), XDG_CACHE_HOME=str(tmp_path))
    assert status == 0 and found["compiler"]["found"].startswith("none of ")
    assert "install gcc" in found["compiler"]["advice"]


def test_a_broken_torch_is_told_and_gives_status_one(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: cannot open')\n")
    status, found = run(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert status == 1 and not found["torch"]["ok"] and "libtorch.so" in found["torch"]["found"]
    # the rest is told all the same
    assert found["python"]["ok"] and found["memory"]["ok"]


@pytest.mark.exhaustive
def test_a_backend_of_the_environment_that_cannot_run_is_broken():
    status, found = run(MAMBA_SPEECH_BACKEND="mamba_ssm")
    assert status == 1 and not found["scan"]["ok"]
    assert "MAMBA_SPEECH_BACKEND" in found["scan"]["advice"]
