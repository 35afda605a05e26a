"""How the demo trains here: in how many processes, and for how many epochs, so that all of it takes ten minutes."""

import os
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
SCRIPT = RECIPE / "train_S2S.py"
YAML = RECIPE / "hparams" / "S2S" / "conmambamamba_mini.yaml"

# two processes of one thread train faster than one of two threads, and together take steps of twice the YAML's batch
PROCESSES = 2
RATE = 0.004
# speech in such a step, once batches of like length are cut
SECONDS_A_STEP = 33.7
# what else takes time, counted in steps, so that it grows with the machine's slowness: start and preparation, the
# validation of an epoch, and the test, the report and its pictures
STEPS_TO_START, STEPS_TO_VALIDATE, STEPS_TO_END = 80, 18, 170
# a step of the training, in measured ones: it also reads recordings, waits for the longer of two batches, and joins the
# gradients of the processes
STEPS_MEASURED = 1.6
# part of the time that stays free, for what a few steps do not tell
RESERVE = 0.05


def count_processors():
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fit_epochs(seconds_left, step_seconds, hours):
    """The most epochs that fit into a time; at least one.

    Arguments
    ---------
    seconds_left : float
    step_seconds : float
        See :func:`demo_measure.seconds_a_step`.
    hours : float
        Training speech.

    Returns
    -------
    int

    Example
    -------
    >>> fit_epochs(520, 0.16, 3), fit_epochs(520, 2.0, 3), fit_epochs(520, 0.16, 1.5)
    (4, 1, 9)
    """
    epoch = steps_an_epoch(hours) + STEPS_TO_VALIDATE
    steps = (
        seconds_left * (1 - RESERVE) / (STEPS_MEASURED * step_seconds)
        - STEPS_TO_START
        - STEPS_TO_END
    )
    return max(1, int(steps / epoch))


def steps_an_epoch(hours):
    """Optimiser steps in which so much speech is heard once."""
    return max(1, round(3600 * hours / SECONDS_A_STEP))


def training_command(processes):
    """The beginning of the training's command: where there is one process, it gathers the gradients of two batches.

    Arguments
    ---------
    processes : int

    Returns
    -------
    command, options : list of str
        What starts the script, and its options.
    """
    options = ["--lr", f"{RATE:g}"]
    if processes == 1:
        return [sys.executable], [*options, "--grad_accumulation_factor", str(PROCESSES)]
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, "--standalone", f"--nproc-per-node={processes}"], options


def training_environment(processes):
    """Variables of the environment that a training with so many processes gets, unless they are set.

    Threads that wait spin for a moment only: where another program wants a core, a step takes several times as long
    otherwise. Processes talk over the loopback device, which no firewall or name server disturbs.
    """
    wanted = {"GOMP_SPINCOUNT": "20000"}
    if processes > 1:
        wanted["OMP_NUM_THREADS"] = "1"
        loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
        if loopback:
            wanted["GLOO_SOCKET_IFNAME"] = loopback.pop()
    return wanted | os.environ
