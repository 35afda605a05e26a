"""Building the CPU kernels: whole or not at all, by several processes at once, for other processors, and where there
is no compiler."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules.ssm import available_backends, selective_scan
from modules.ssm.cpu import build, cache

ROOT = str(Path(__file__).parents[3])

# a compiler that makes code for one instruction set, whichever processor it runs on
_OTHER_PROCESSOR = """#!/bin/sh
for word do
    shift
    case $word in -march=native) word=-march={processor} ;; esac
    set -- "$@" "$word"
done
exec cc "$@"
"""

_PROBE = """
import torch
from modules.ssm import available_backends, selective_scan
x = torch.randn(1, 5, 3)
selective_scan(x, x.abs(), -torch.rand(3, 2), x[..., :2], x[..., :2])
print(available_backends())
"""


def start(folder, **environment):
    environment = {
        **os.environ,
        "MAMBA_SPEECH_CACHE": str(folder),
        "PYTHONPATH": ROOT,
        **environment,
    }
    for name in ("MAMBA_SPEECH_BACKEND", "TRITON_INTERPRET"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-c", _PROBE], env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.exhaustive
def test_two_processes_build_into_a_fresh_folder_at_once(tmp_path):
    processes = [start(tmp_path / "new") for _ in range(2)]
    for process in processes:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and printed == "['cpu', 'torch', 'naive', 'graph']\n"
    # nothing but the library, its checksum and the lock: no half file, no temporary one
    assert {p.suffix for p in (tmp_path / "new").iterdir()} == {".so", ".sum", ".lock"}


@pytest.fixture
def unbuilt(tmp_path, monkeypatch):
    """Let the next use of the kernels build them into an empty folder, by a compiler given as a command."""

    def by(compiler):
        monkeypatch.setattr(build, "_loaded", None)
        monkeypatch.setattr(build, "_reason", None)
        monkeypatch.setenv("MAMBA_SPEECH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("CC", compiler)
        monkeypatch.delenv("MAMBA_SPEECH_BACKEND", raising=False)
        return tmp_path / "cache"

    return by


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler-here"])
def test_torch_takes_over_with_one_line_where_the_compiler_fails(compiler, unbuilt, caplog):
    unbuilt(compiler)
    x = torch.randn(1, 5, 3)
    for _ in range(2):
        selective_scan(x, x.abs(), -torch.rand(3, 2), x[..., :2], x[..., :2])
    assert available_backends() == ["torch", "naive", "graph"]
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert compiler in line and "torch takes over" in line


@pytest.mark.skipif(
    build.refusal() is not None or not Path("/proc/self/fd").is_dir(),
    reason="no compiled kernels, or no /proc",
)
def test_a_library_has_its_name_only_when_it_is_whole(unbuilt, tmp_path):
    """A script stands for the compiler: it writes half a library, then fails or writes the whole one."""
    whole, seen = tmp_path / "whole", tmp_path / "seen"
    whole.write_bytes(Path(build._loaded._name).read_bytes())
    script = tmp_path / "compiler"
    for last, suffixes in (("exit 1", set()), (f"cp {whole} $2", {".so", ".sum"})):
        script.write_text(
            "#!/bin/sh\n[ $1 = --version ] && exit 0\nwhile [ $1 != -o ]; do shift; done\n"
            f"echo half > $2\nls $(dirname $2)/.. > {seen}\n{last}\n"
        )
        script.chmod(0o755)
        folder = unbuilt(str(script))
        assert (build.refusal() is None) == bool(suffixes)
        assert seen.read_text().split() and ".so" not in seen.read_text()
        assert {path.suffix for path in folder.iterdir()} == suffixes | {".lock"}


@pytest.mark.skipif(
    build.refusal() is not None or not Path("/proc/self/fd").is_dir(),
    reason="no compiled kernels, or no /proc",
)
def test_a_system_without_files_in_memory_loads_a_copy_and_removes_it(monkeypatch, tmp_path):
    data = Path(build._loaded._name).read_bytes()
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.load(data).mamba_speech_lanes() == build.library().mamba_speech_lanes()
    # where the temporary folder takes nothing, the copy stands in the cache for a moment
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert cache.load(data, tmp_path).mamba_speech_lanes() > 0
    with pytest.raises(OSError):
        cache.load(data[:-1], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.exhaustive
@pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("cc"), reason="needs an x86-64 and cc"
)
@pytest.mark.parametrize("processor", ["x86-64", "haswell"])
def test_kernels_for_lesser_processors_pass_the_same_tests(tmp_path, processor):
    if processor == "haswell" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no AVX2")
    # x86-64 has neither fused multiplications nor float16; haswell has both, and vectors of 8
    compiler = tmp_path / "cc"
    compiler.write_text(_OTHER_PROCESSOR.format(processor=processor))
    compiler.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not exhaustive", "-p", "no:cacheprovider",
         "tests/modules/ssm/test_scan_cpu.py", "tests/modules/ssm/test_scan_cpu_directions.py",
         "tests/modules/ssm/test_conv_cpu.py"],
        env={**os.environ, "CC": str(compiler), "MAMBA_SPEECH_CACHE": str(tmp_path / "kernels")},
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert "every test ran" in done.stdout and list((tmp_path / "kernels").glob("*.so"))
