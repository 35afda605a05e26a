"""Fresh processes that look for the compiled kernels, each under an environment of its own.

A server imports torch once and forks for every process that a test asks for, so that one costs milliseconds and may
crash. Run as a program, this file is the server.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# $2 is the file behind -o; every build leaves a line
_COMPILER = """#!/bin/sh
[ "$1" = --version ] && {{ echo 'compiler 1.0'; exit 0; }}
while [ "$1" != -o ]; do shift; done
echo build >> $BUILDS
{before}
cp {library} "$2"
"""
NOTHING_TO_SAY = {"refusal": None, "warnings": []}

_ROOT = Path(__file__).parents[2]
_SECONDS = 30


class Builds:
    """The server, and what its processes answer.

    An answer has ``status`` (0, or the signal's number below zero), and from a process that came to its end
    ``refusal``, ``warnings``, ``backends``, ``error`` (of the scan, relative to ``torch``) and ``seconds``;
    with ``twice`` also ``again``, the refusal and the warnings of a second look.
    """

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
        for name in ("MAMBA_SPEECH_BACKEND", "TRITON_INTERPRET", "CC"):
            environment.pop(name, None)
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *, count=1, after_loading="", kill_when="", patience=None, twice=False, **environment
    ):
        """Answers of ``count`` processes that start together; of the only one, not in a list.

        Arguments
        ---------
        after_loading : str
            Shell command that runs once the kernels are loaded, before they compute.
        kill_when : str or pathlib.Path
            File whose appearance ends the process by SIGKILL.
        patience : float, optional
            Seconds that the process waits for a compiler.
        twice : bool
            Whether the process then forgets what it found, and looks again.
        **environment
            Variables of the process; ``None`` unsets one.
        """
        environment = {k: None if v is None else str(v) for k, v in environment.items()}
        case = [count, after_loading, str(kill_when), patience, twice, environment]
        self._server.stdin.write(json.dumps(case) + "\n")
        self._server.stdin.flush()
        answers = json.loads(self._server.stdout.readline())
        return answers if count > 1 else answers[0]

    def close(self):
        """End the server."""
        self._server.stdin.close()
        self._server.wait(timeout=10)


class Place:
    """A cache, a home and a temporary folder of one case, and its compiler."""

    def __init__(self, folder, library, builds, whole=None):
        self.folder, self.library, self._builds, self._whole = folder, library, builds, whole
        self.cache, self.home, self.temporary = (folder / n for n in ("cache", "home", "tmp"))
        self.home.mkdir()
        self.temporary.mkdir()
        self.log = folder / "log"
        self.compiler = self.write_compiler() if whole is None else whole.compiler

    def write_compiler(self, text=None, before=""):
        path = self.folder / "compiler"
        if text is None:
            text = _COMPILER.format(library=self.library, before=before)
        path.write_text(text)
        path.chmod(0o755)
        self.compiler = path
        return path

    def fill(self):
        """Put the kernels of an earlier process into the cache."""
        shutil.copytree(self._whole.cache, self.cache)

    def run(self, **options):
        """Answer of a fresh process under this case's variables."""
        variables = {
            "MAMBA_SPEECH_CACHE": self.cache,
            "HOME": self.home,
            "TMPDIR": self.temporary,
            "CC": self.compiler,
            "BUILDS": self.log,
        }
        return self._builds.run(**variables | options)

    def built(self):
        """Number of builds so far."""
        return len(self.log.read_text().split()) if self.log.exists() else 0

    @property
    def so(self):
        (path,) = self.cache.glob("*.so")
        return path

    @property
    def sum(self):
        return self.so.with_suffix(".sum")


def assert_compiled(answer):
    assert answer["status"] == 0 and answer["refusal"] is None
    assert answer["backends"] == ["cpu", "torch", "naive", "graph"] and answer["error"] < 1e-5


def other_library(path):
    """A library that is whole, and another one."""
    (found, *_) = Path(os.__file__).parent.rglob("*.cpython*.so")
    path.write_bytes(found.read_bytes())


def _serve():
    import torch

    import modules.ssm  # noqa: F401 (imported for the processes)

    torch.manual_seed(0)
    torch.set_num_threads(1)
    for line in sys.stdin:
        count, after_loading, kill_when, *others = json.loads(line)
        started = [_start(after_loading, *others) for _ in range(count)]
        print(json.dumps([_answer(*process, kill_when) for process in started]), flush=True)


def _start(*case):
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    with contextlib.suppress(BaseException), os.fdopen(writing, "w") as file:
        json.dump(_look(*case), file)
    os._exit(0)


def _answer(process, reading, kill_when):
    end = time.monotonic() + _SECONDS
    while os.waitpid(process, os.WNOHANG) == (0, 0) if kill_when else False:
        if Path(kill_when).exists() or time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            break
        time.sleep(0.01)
    with os.fdopen(reading) as file:
        said = file.read()
    with contextlib.suppress(ChildProcessError):
        _, status = os.waitpid(process, 0)
        return {"status": os.waitstatus_to_exitcode(status), **json.loads(said or "{}")}
    return {"status": -signal.SIGKILL}


def _look(after_loading, patience, twice, environment):
    """What a fresh process finds, in its own words."""
    import tempfile

    import torch

    from modules.ssm import available_backends, selective_scan
    from modules.ssm.cpu import build, cache, compiler

    signal.alarm(_SECONDS)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    tempfile.tempdir = environment.get("TMPDIR")
    if patience:
        compiler.VERSION_SECONDS = compiler.BUILD_SECONDS = patience
    warnings = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    start = time.monotonic()
    refusal = build.refusal()
    seconds = time.monotonic() - start
    if after_loading:
        subprocess.run(after_loading, shell=True, check=True)
    u, A, B = torch.randn(2, 40, 5), -torch.rand(5, 4), torch.randn(2, 40, 4)
    found, wanted = (selective_scan(u, u.abs(), A, B, B, backend=b) for b in ("auto", "torch"))
    answer = {
        "refusal": refusal,
        "warnings": warnings[:],
        "backends": available_backends(),
        "error": ((found - wanted).abs().max() / wanted.abs().max()).item(),
        "seconds": seconds,
    }
    if twice:
        build._loaded = build._reason = None
        cache._warn.cache_clear()
        warnings.clear()
        answer["again"] = {"refusal": build.refusal(), "warnings": warnings}
    return answer


if __name__ == "__main__":
    _serve()
