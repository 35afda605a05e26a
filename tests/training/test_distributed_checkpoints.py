"""Saving a checkpoint in a distributed run."""

import subprocess
import sys

import pytest

SAVE = """
import os, sys, time
import torch
from speechbrain.utils.distributed import ddp_init_group
from training import checkpoints

ddp_init_group({"distributed_backend": "gloo"})
rename = os.replace

def rename_late(*paths):
    time.sleep(1)
    rename(*paths)

checkpoints.os.replace = rename_late
checkpointer = checkpoints.AtomicCheckpointer(sys.argv[1], {"model": torch.nn.Linear(2, 2)})
checkpointer.save_checkpoint()
# a file each, since lines that two processes print at once run into one another
with open(f"{sys.argv[1]}.{os.environ['RANK']}", "w") as file:
    file.write(f"{len(checkpointer.list_checkpoints())}")
"""


@pytest.mark.exhaustive
def test_every_process_sees_a_checkpoint_as_soon_as_it_is_saved(tmp_path):
    script = tmp_path / "save.py"
    script.write_text(SAVE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "save")],
        check=False,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"save.{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
