"""Building the CPU kernels: by several processes at once, and where there is no compiler."""

import os
import subprocess
import sys

import pytest

_PROBE = """
import logging, sys, torch
logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
from modules.ssm import available_backends, selective_scan
x = torch.randn(1, 5, 3)
for _ in range(2):
    selective_scan(x, x.abs(), -torch.rand(3, 2), x[..., :2], x[..., :2])
print(available_backends())
"""


def start(folder, **environment):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {
        **os.environ,
        "MAMBA_SPEECH_CACHE": str(folder),
        "PYTHONPATH": root,
        **environment,
    }
    for name in ("MAMBA_SPEECH_SCAN", "TRITON_INTERPRET"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-c", _PROBE], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_build_into_a_fresh_folder_at_once(tmp_path):
    processes = [start(tmp_path / "new") for _ in range(2)]
    for process in processes:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and printed == "['cpu', 'torch', 'naive']\n"
    # nothing but the library: no half file, no temporary one
    assert [p.suffix for p in (tmp_path / "new").iterdir()] == [".so"]


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler-here"])
def test_torch_takes_over_with_one_line_where_the_compiler_fails(tmp_path, compiler):
    process = start(tmp_path, CC=compiler)
    lines = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0
    assert len(lines) == 2 and compiler in lines[0] and "torch takes over" in lines[0]
    assert lines[1] == "['torch', 'naive']"
