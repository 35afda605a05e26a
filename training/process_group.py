"""The processes that torchrun starts: which backend joins them, and whether each has a device."""

import os
from dataclasses import replace

import torch


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
