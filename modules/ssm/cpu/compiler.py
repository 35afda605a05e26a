"""The system's C compiler: its command, its flags, and the longest wait for it.

A compiler that is missing, fails, hangs or prints without end is the environment's fault. The error says so, names
``CC`` where it is set, and gives the remedy.
"""

import contextlib
import hashlib
import os
import platform
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import torch

_SOURCES = ("scan_forward.c", "scan_backward.c", "conv.c", "frame.c", "decoder.c", "prefixes.c")
_HEADERS = ("vectors.h", "scan.h", "frame.h")
# -ffast-math is left out on purpose: it would cancel the rounding inside exp, and NaN with it
_FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wno-psabi",
]
# a version is said at once, a build takes seconds; a busy machine gets ten times as long
VERSION_SECONDS, BUILD_SECONDS = 15, 120
# no complaint that is worth reading is longer
_MOST_BYTES = 1 << 20
REMEDY = "; set CC to a C compiler that works, or unset it"


class Hanging(RuntimeError):
    """A compiler that does not end: other flags would not help it."""


def compilers():
    """Commands to try, as lists of words: ``$CC`` alone where it is set.

    Raises
    ------
    RuntimeError
        If there is none, or ``CC`` is no command.
    """
    chosen = os.environ.get("CC", "")
    if not chosen.strip():
        found = [[name] for name in ("cc", "gcc", "clang") if shutil.which(name)]
        if not found:
            raise RuntimeError(
                "no C compiler found (looked for cc, gcc, clang): install one, or name one in CC"
            )
        return found
    try:
        return [shlex.split(chosen)]
    except ValueError as error:
        raise RuntimeError(f"{at_fault([chosen])} is no command ({error}){REMEDY}") from None


def key(compiler):
    """A hash of everything that a build depends on: sources, flags, the compiler's version, the processor.

    Raises
    ------
    RuntimeError
        If the compiler does not tell its version.
    """
    version = run([*compiler, "--version"], VERSION_SECONDS)
    digest = hashlib.sha256()
    for name in _SOURCES + _HEADERS:
        digest.update((Path(__file__).parent / name).read_bytes())
    parts = (compiler, version, _FLAGS, _flag_sets(), platform.machine(), _processor())
    digest.update(repr(parts).encode())
    return digest.hexdigest()[:24]


def compile_kernels(compiler, room):
    """Compile with the best flags that the compiler takes.

    Arguments
    ---------
    compiler : list of str
        Command.
    room : pathlib.Path
        Empty folder for the library and for the compiler's own temporary files.

    Returns
    -------
    (bytes, str)
        The library, and the flags.

    Raises
    ------
    RuntimeError
        If it does not compile.
    """
    sources = [str(Path(__file__).parent / name) for name in _SOURCES]
    made = room / "kernels.so"
    problem = None
    for extra in _flag_sets():
        try:
            run([*compiler, *_FLAGS, *sources, *extra, "-o", str(made)], BUILD_SECONDS, room)
            data = made.read_bytes() if made.is_file() else b""
            if not data:
                raise RuntimeError(f"{at_fault(compiler)} made no library{REMEDY}")
            return data, " ".join(extra)
        except Hanging:
            raise
        except RuntimeError as error:
            problem = problem or error
    raise problem


def run(command, seconds, room=None):
    """What a command printed to its standard output.

    Raises
    ------
    RuntimeError
        If it cannot be run, fails with its complaint, or prints too much.
    Hanging
        If it takes longer than ``seconds``.
    """
    who = at_fault(command)
    environment = dict(os.environ) if room is None else {**os.environ, "TMPDIR": str(room)}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RuntimeError(f"{who} cannot be run ({reason}){REMEDY}") from None
    with process.stdout, process.stderr:
        try:
            printed, complaint = _listen(process, who, seconds)
        except BaseException:
            # its children too: a script may wait for a compiler that hangs
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode:
        lines = (complaint or printed).strip().splitlines() or ["no message"]
        raise RuntimeError(f"{who} failed (exit {process.returncode}): {lines[0]}{REMEDY}")
    return printed


def at_fault(command):
    """The compiler as the user knows it."""
    chosen = os.environ.get("CC", "")
    return f"CC={shlex.quote(chosen)}" if chosen.strip() else shlex.join(command[:1])


def _listen(process, who, seconds):
    """Both outputs of a process, once it has ended."""
    end, size = time.monotonic() + seconds, 0
    said = {process.stdout: [], process.stderr: []}
    with selectors.DefaultSelector() as waiting:
        for stream in said:
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            left = end - time.monotonic()
            if left <= 0:
                raise Hanging(f"{who} did not end within {seconds} s{REMEDY}")
            ready = waiting.select(min(left, 0.2))
            for chosen, _ in ready:
                data = os.read(chosen.fd, 1 << 16)
                said[chosen.fileobj].append(data)
                size += len(data)
                if not data:
                    waiting.unregister(chosen.fileobj)
            if size > _MOST_BYTES:
                raise RuntimeError(f"{who} prints without end{REMEDY}")
            # a child of it that lives on may hold the pipes open
            if not ready and process.poll() is not None:
                break
    try:
        process.wait(max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise Hanging(f"{who} did not end within {seconds} s{REMEDY}") from None
    return (b"".join(said[s]).decode("utf-8", "replace") for s in (process.stdout, process.stderr))


def _flag_sets():
    """Extra flags, best first: for this processor, on the OpenMP runtime that torch loaded."""
    bundled = _torch_openmp()
    # linked by its path: the loader then finds, by its name, the copy that torch has loaded
    runtimes = [["-fopenmp", bundled, "-Wl,--as-needed"]] if bundled else []
    runtimes += [["-fopenmp"], []]
    processors = (["-march=native"], ["-mcpu=native"], [])
    return [processor + runtime for runtime in runtimes for processor in processors]


def _torch_openmp():
    """Path of the libgomp that torch's wheel carries, or ``None``."""
    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.parent / "torch.libs"):
        for path in sorted(folder.glob("libgomp*.so*")):
            return str(path)
    return None


def _processor():
    """Model and instruction sets of the processor: what ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return sorted({line for line in lines if line.startswith(wanted)})
