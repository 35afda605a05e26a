"""The processes that torchrun starts: which backend joins them, whether each has a device, how they end."""

import os
import threading
import time
from dataclasses import replace

import torch

# how often a process looks whether its launcher lives
WATCH_SECONDS = 0.5


def choose_backend(run_opts):
    """Join processes by gloo where they train on a CPU, and refuse more processes than there are GPUs.

    SpeechBrain's default is nccl, which needs GPUs.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions

    Returns
    -------
    (speechbrain.utils.run_opts.RunOptions, str)
        The options with the backend, and a sentence for the log; empty if nothing was chosen.

    Raises
    ------
    SystemExit
        With one sentence, if the processes cannot be joined.
    """
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        return run_opts, ""
    gpus = torch.cuda.device_count()
    backend = run_opts.distributed_backend
    if (run_opts.device or "cuda").startswith("cuda") and gpus and backend != "gloo":
        here = int(os.environ.get("LOCAL_WORLD_SIZE", int(os.environ["LOCAL_RANK"]) + 1))
        if here > gpus:
            raise SystemExit(
                f"torchrun starts {here} processes on a machine with {gpus} GPUs: give --nproc-per-node={gpus}"
            )
        return run_opts, ""
    if "distributed_backend" not in run_opts.overridden_args:
        sentence = "the processes are on the CPU, so gloo joins them (--distributed_backend gloo)"
        return replace(run_opts, distributed_backend="gloo"), sentence
    if backend == "nccl":
        raise SystemExit(
            "--distributed_backend nccl needs a GPU for each process; leave the option out, and gloo joins "
            "processes on the CPU"
        )
    return run_opts, ""


def end_with_launcher():
    """Let a process that torchrun started end within a second of torchrun's death; others are left alone.

    Its processes would go on otherwise, and keep the next start out of the output folder.
    """
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        return
    launcher = os.getppid()

    def watch():
        while os.getppid() == launcher:
            time.sleep(WATCH_SECONDS)
        # checkpoints are whole or not at all, and the main thread may wait for the other processes for ever
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end_with_launcher").start()
