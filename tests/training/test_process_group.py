"""Processes that torchrun starts: gloo joins them on a CPU, and each needs a GPU otherwise."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from tests.support.recipes import ROOT
from training.process_group import choose_backend


def choose(**options):
    return choose_backend(RunOptions(**options, overridden_args=set(options)))


@pytest.fixture
def torchrun(monkeypatch):
    """The environment of the second of two processes."""
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)


@pytest.fixture(params=[0, 1, 2])
def gpus(request, monkeypatch):
    """So many GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


def test_gloo_joins_processes_on_a_cpu_and_the_log_says_so(torchrun, gpus):
    options, sentence = choose(device="cpu")
    assert options.distributed_backend == "gloo" and "gloo" in sentence and "CPU" in sentence
    assert options.device == "cpu" and options.overridden_args == {"device"}


def test_each_process_has_a_gpu_or_all_of_them_are_refused_in_one_sentence(torchrun, gpus):
    if gpus == 1:
        with pytest.raises(
            SystemExit, match="2 processes on a machine with 1 GPU.*--nproc-per-node=1"
        ):
            choose()
    else:
        options, _ = choose()
        assert options.distributed_backend == ("nccl" if gpus else "gloo")


def test_a_given_backend_is_kept_or_refused(torchrun, gpus):
    assert choose(device="cpu", distributed_backend="gloo")[1] == ""
    assert choose(distributed_backend="gloo")[0].distributed_backend == "gloo"
    with pytest.raises(SystemExit, match="--distributed_backend nccl needs a GPU"):
        choose(device="cpu", distributed_backend="nccl")


def test_one_process_is_left_alone(gpus, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    options, sentence = choose(device="cpu")
    assert options.distributed_backend == RunOptions().distributed_backend and not sentence


# a launcher whose one process tells its id, and would then wait for ever
CHILD = "import os, time, training.process_group as group; group.end_with_launcher(); "
CHILD += "print(os.getpid(), flush=True); time.sleep(600)"
LAUNCHER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def lives(process):
    """Whether a process computes: one that has ended and that nobody asks for does not."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.exhaustive
def test_a_process_ends_with_the_launcher_that_was_killed(torchrun):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LAUNCHER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as launcher:
        child = int(launcher.stdout.readline())
        assert lives(child)
        launcher.kill()
        launcher.stdout.close()
    deadline = time.monotonic() + 30
    while lives(child):
        assert time.monotonic() < deadline, os.kill(child, signal.SIGKILL)
        time.sleep(0.1)
