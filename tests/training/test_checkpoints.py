"""Checkpoints: whole or not there, with the random state, and seen by every process at once."""

import os
import random

import numpy as np
import pytest
import torch

from tests.support.recipes import TORCHRUN, run_script
from tests.support.training import make_brain, train
from training.checkpoints import AtomicCheckpointer, RandomState


def test_a_resumed_run_draws_the_random_numbers_of_an_uninterrupted_one(tmp_path):
    state, path = RandomState(), tmp_path / "random_state.ckpt"

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item(), torch.randn(3).tolist()

    draw()
    state.save(path)
    expected = draw()
    draw()
    state.load(path)
    assert draw() == expected


def test_a_checkpoint_without_its_meta_file_or_one_of_its_files_is_never_loaded(tmp_path):
    brain = train(make_brain(tmp_path, epochs=2))
    *_, second, within = sorted(
        brain.checkpointer.list_checkpoints(), key=lambda c: c.meta["unixtime"]
    )
    assert second.meta["epoch"] == 2 and not list(tmp_path.rglob("*.partial"))
    os.remove(within.paramfiles["optimizer"])
    reopened = AtomicCheckpointer(tmp_path)
    assert reopened.find_checkpoint().path == second.path
    # opening a folder changes nothing in it: another process may be saving there
    assert within.path.exists()
    os.remove(within.path / "CKPT.yaml")
    (within.path / "CKPT.yaml.partial").touch()
    reopened.remove_incomplete()
    assert not within.path.exists() and second.path.exists()


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
    run_script(tmp_path, script, tmp_path / "save", launcher=TORCHRUN)
    assert [(tmp_path / f"save.{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
