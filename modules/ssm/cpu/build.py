"""Builds the C kernels of this folder with the system's compiler at first use, and loads them.

The library is kept in ``$MAMBA_SPEECH_CACHE``, else ``~/.cache/mamba-speech``, else a private
folder under the temporary one, under a hash of everything that it depends on: the sources, the
flags, the compiler's version and the processor. Several processes may start at once: each builds
under a temporary name and renames.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_SOURCES = ("scan_forward.c", "scan_backward.c", "conv.c")
_HEADERS = ("vectors.h", "scan.h")
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
_SECONDS = 120

_lock = threading.Lock()
_loaded = None
_reason = None


def library():
    """The loaded kernels.

    Returns
    -------
    ctypes.CDLL

    Raises
    ------
    RuntimeError
        If they cannot be built or loaded here, with the reason.
    """
    reason = refusal()
    if reason is not None:
        raise RuntimeError(f"the compiled CPU kernels cannot be used: {reason}")
    return _loaded


@torch.compiler.assume_constant_result
def refusal():
    """Why the compiled kernels cannot be used here, or ``None``; the first call builds."""
    global _loaded, _reason
    if _loaded is None and _reason is None:
        with _lock:
            if _loaded is None and _reason is None:
                try:
                    _loaded = _build_and_load()
                except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                    _reason = str(error)
                    logger.warning(
                        "compiled CPU kernels unavailable, torch takes over: %s", _reason
                    )
    return _reason


def cache_folder():
    """The folder that keeps built kernels, created if need be and writable by this user."""
    chosen = os.environ.get("MAMBA_SPEECH_CACHE")
    if chosen:
        folder = Path(chosen).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    user = os.getuid() if hasattr(os, "getuid") else "user"
    for folder in (
        Path("~/.cache/mamba-speech").expanduser(),
        Path(tempfile.gettempdir(), f"mamba-speech-{user}"),
    ):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        # a folder that another user made could hold another user's code
        if os.access(folder, os.W_OK) and (user == "user" or folder.stat().st_uid == user):
            return folder
    return Path(tempfile.mkdtemp(prefix="mamba-speech-"))


def _build_and_load():
    compilers = _compilers()
    folder = cache_folder()
    problems = []
    for compiler in compilers:
        try:
            version = _run([*compiler, "--version"])
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            problems.append(str(error))
            continue
        target = folder / f"kernels-{_key(compiler, version)}.so"
        if not target.exists():
            try:
                _build(compiler, target)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                problems.append(str(error))
                continue
        return ctypes.CDLL(str(target))
    raise RuntimeError("; ".join(problems))


def _compilers():
    """Commands to try: ``$CC`` alone where it is set."""
    if os.environ.get("CC"):
        return [shlex.split(os.environ["CC"])]
    found = [[name] for name in ("cc", "gcc", "clang") if shutil.which(name)]
    if not found:
        raise RuntimeError("no C compiler found (looked for cc, gcc, clang): install one or set CC")
    return found


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


def _key(compiler, version):
    digest = hashlib.sha256()
    for name in _SOURCES + _HEADERS:
        digest.update((Path(__file__).parent / name).read_bytes())
    parts = (compiler, version, _FLAGS, _flag_sets(), platform.machine(), _processor())
    digest.update(repr(parts).encode())
    return digest.hexdigest()[:24]


def _processor():
    """Model and instruction sets of the processor: what ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return sorted({line for line in lines if line.startswith(wanted)})


def _build(compiler, target):
    """Compile into ``target``, with the best flags that the compiler takes."""
    sources = [str(Path(__file__).parent / name) for name in _SOURCES]
    problem = None
    for extra in _flag_sets():
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.stem, suffix=".tmp")
        os.close(handle)
        try:
            _run([*compiler, *_FLAGS, *sources, *extra, "-o", temporary])
            os.replace(temporary, target)
            logger.info("compiled the CPU kernels: %s %s", shlex.join(compiler), " ".join(extra))
            return
        except RuntimeError as error:
            problem = problem or error
        finally:
            Path(temporary).unlink(missing_ok=True)
    raise problem


def _run(command):
    """What a command printed; ``RuntimeError`` with its complaint if it fails."""
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise RuntimeError(f"{command[0]} failed (exit {done.returncode}): {complaint[0]}")
    return done.stdout
