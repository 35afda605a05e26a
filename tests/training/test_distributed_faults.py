"""Processes of a distributed run stay in step where one of them reads or computes something bad."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path

import torch
import torch.distributed as processes

from tests.support.training import make_brain
from tests.training.test_nonfinite import Diverging, is_finite
from tests.training.test_unreadable import Files, Reading


class Both(Diverging, Reading):
    pass


processes.init_process_group("gloo")
folder, rank = Path(sys.argv[1]), processes.get_rank()
if rank == 0:
    Files(folder, 16)
    for index in (1, 2, 5, 9):
        (folder / f"{index}.wav").unlink()
processes.barrier()
files = Files.__new__(Files)
files.paths = [folder / f"{index}.wav" for index in range(16)]
torch.manual_seed(0)
options = {"distributed_launch": True, "distributed_backend": "gloo"}
factor = int(sys.argv[2])
brain = make_brain(folder / "run", brain_class=Both, grad_accumulation_factor=factor, **options)
brain.bad = (2,) if rank else ()
brain.run_on(files)
weights = torch.cat([p.detach().flatten() for p in brain.modules.parameters()])
both = [None, None]
processes.all_gather_object(both, weights)
found = torch.equal(*both), is_finite(brain), brain.nonfinite_losses, len(brain.unreadable)
(folder / f"{rank}.txt").write_text(str(found))
processes.destroy_process_group()
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("factor", [1, 2])
def test_all_processes_skip_together(tmp_path, factor):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "script.py"), str(tmp_path), str(factor)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # files, since lines that two processes print at once mix
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text() == "(True, True, 1, 4)"
    assert (tmp_path / "run" / "unreadable.csv").is_file()
