"""Two processes on a CPU train what one trains with the same global batch, and go on after any of them is killed."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import torch

from tests.support.recipes import TORCHRUN
from tests.support.recognition import DEBUG, SPLITS, run_script, weights
from training.results import read_results

STATE = SPLITS | {"device": "cpu", "total_steps": 60, "max_batch_length_train": 8, "num_workers": 0}
SEARCH = {"valid_beam_size": 1, "test_beam_size": 1, "max_decode_ratio": 0.2}


def start(kind, folder, processes, **options):
    """Start a script of the debug model, in one process or two."""
    launcher = {"launcher": TORCHRUN} if processes == 2 else {"grad_accumulation_factor": 2}
    search = SEARCH if kind == "S2S" else {}
    return run_script(
        kind, DEBUG[kind], **STATE, **search, **launcher, output_folder=folder, **options
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", DEBUG)
def test_two_processes_give_what_one_process_gives_with_the_same_global_batch(
    kind, spoken, tmp_path
):
    # one batch of each process makes a step, and two of one process. The first ends after the epochs in which the
    # statistics of the normalisation still grow, since a batch is normalised by those that were read before it
    one, two = tmp_path / "one", tmp_path / "two"
    options = {"data_folder": spoken, "fea_augment": "null"}
    # in random order, SpeechBrain shuffles the batches of two processes once more
    options["sorting"] = "descending"
    start(kind, one, 1, **options, number_of_epochs=4)
    shutil.copytree(one, two)
    before, steps = weights(one), read_results(one).training.optimizer_steps
    for folder, processes in ((one, 1), (two, 2)):
        start(kind, folder, processes, **options, number_of_epochs=6)
        training = read_results(folder).training
        assert training.sessions[-1].world_size == processes
        assert training.optimizer_steps == steps * 6 // 4
    found, expected = weights(two), weights(one)
    # halves add up to the same in either order
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any(not torch.equal(before[name], value) for name, value in expected.items())


@pytest.fixture(scope="module")
def undisturbed(spoken, tmp_path_factory):
    """The weights of a training in two processes that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    start("S2S", folder, 2, data_folder=spoken, number_of_epochs=2)
    return weights(folder)


def ids_of_processes(launcher):
    """The processes that a launcher has started, by their ranks."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid"], check=True, capture_output=True, text=True
    ).stdout.splitlines()[1:]
    children = [int(pid) for pid, parent in map(str.split, listed) if int(parent) == launcher]
    ranks = {}
    for child in children:
        with open(f"/proc/{child}/environ", encoding="utf-8", errors="replace") as file:
            variables = dict(one.partition("=")[::2] for one in file.read().split("\0"))
        if "RANK" in variables:
            ranks[int(variables["RANK"])] = child
    return ranks


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")
@pytest.mark.exhaustive
@pytest.mark.parametrize("victim", ["the first", "the second", "the launcher"])
def test_a_killed_process_ends_them_all_and_the_same_command_goes_on_exactly(
    victim, undisturbed, spoken, tmp_path
):
    folder, options = tmp_path / "run", {"data_folder": spoken, "number_of_epochs": 2}
    options |= {"ckpt_interval_steps": 1, "ckpt_interval_minutes": 0}
    launcher = start("S2S", folder, 2, **options, wait=False)
    deadline = time.monotonic() + 240
    while not list(folder.glob("save/CKPT*/CKPT.yaml")):
        assert launcher.poll() is None and time.monotonic() < deadline, launcher.stdout.read()
        time.sleep(0.02)
    ranks = ids_of_processes(launcher.pid)
    chosen = {"the first": ranks[0], "the second": ranks[1], "the launcher": launcher.pid}[victim]
    os.kill(chosen, signal.SIGKILL)
    # the pipe is at its end once the last of them has left it
    launcher.communicate(timeout=120)
    start("S2S", folder, 2, **options)
    assert "Loading a checkpoint" in (folder / "log.txt").read_text()
    assert len(read_results(folder).training.sessions) == 2
    interrupted = weights(folder)
    assert all(torch.equal(interrupted[name], value) for name, value in undisturbed.items())
