"""Running Triton's kernels on a card or in the interpreter, and compiling them for cards that need not be there."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from modules.ssm.scan.triton_backend import selective_scan_triton
from modules.ssm.triton.plan import PassPlan, ScanPlan
from tests.support.scan import as_leaves

KERNELS = "modules.ssm.triton."
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# small plans: time whole, in chunks of 16 frames, and in chunks of 32
WHOLE = ScanPlan(PassPlan(16, 1, 4), PassPlan(16, 1, 16))
CHUNKED = ScanPlan(PassPlan(16, 1, 2, 16), PassPlan(16, 1, 4, 16))
LONG_CHUNKS = ScanPlan(PassPlan(8, 1, 4, 32), PassPlan(8, 1, 8, 32))


def forget_kernels():
    """Take the modules that define kernels out of Python's table, and return them by name."""
    names = [name for name in sys.modules if name.startswith(KERNELS)]
    # a plan is no kernel, and tests compare plans by their class
    return {name: sys.modules.pop(name) for name in names if name != f"{KERNELS}plan"}


def to(inputs, dtype=torch.float32):
    """The inputs as leaves on the device of the kernels."""
    return as_leaves(inputs, dtype, DEVICE)


def on_device(lengths):
    """Frame counts on the device of the kernels."""
    return None if lengths is None else lengths.to(DEVICE)


def with_plan(chosen):
    """The scan by a plan instead of the one that fits its sizes."""

    def scan(*args, **options):
        return selective_scan_triton(*args, **options, plan=chosen)

    return scan


def resources(binary):
    """Registers, and bytes of stack and local memory, that a thread of a compiled kernel takes."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("Triton's wheel brings no cuobjdump here")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        said = subprocess.run(
            [tool, "-res-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", said)
    return dict(zip(("registers", "stack", "local"), map(int, found.groups()), strict=True))
