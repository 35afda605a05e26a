"""Where Triton's kernels can run at all."""

import importlib.util
import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path

import torch

# the oldest cards for which tests compile the kernels
OLDEST_CAPABILITY = (8, 0)


@cache
def installed():
    """Whether the package ``triton`` is here."""
    return importlib.util.find_spec("triton") is not None


def interpreted():
    """Whether Triton runs kernels on the CPU, as its variable ``TRITON_INTERPRET`` asks (slow: for tests)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def device_refusal(device):
    """Why Triton's kernels cannot run on a :class:`torch.device`, or ``None``."""
    if not installed():
        return "Triton is not installed: there are wheels for Linux, and PyTorch's CUDA builds bring it"
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return (
            f"Triton kernels run on CUDA only, and the tensors are on {device.type} "
            "(TRITON_INTERPRET=1 runs them on the CPU, for tests)"
        )
    # torch.compile cannot look into the system, and needs the same compiler itself
    if device.type == "cuda" and not torch.compiler.is_compiling():
        return launcher_refusal() or card_refusal(device.index)
    return None


@cache
def launcher_refusal():
    """Why Triton cannot compile the C code that launches its kernels, or ``None``."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or shutil.which(compiler) is None:
        return "Triton needs a C compiler for its launcher: install gcc, or name one in CC"
    scheme = sysconfig.get_default_scheme()
    # Debian's own scheme leads to a folder without headers
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    header = Path(sysconfig.get_paths(scheme)["include"]) / "Python.h"
    if not header.is_file():
        return f"Triton needs Python's headers for its launcher ({header}): install python3-dev"
    return None


@cache
def card_refusal(index):
    """Why the kernels cannot run on a card, or ``None``; the current card for ``None``."""
    if torch.version.hip is not None:
        return "the Triton kernels are tested for NVIDIA cards only"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST_CAPABILITY:
        return (
            f"the Triton kernels are tested for cards of capability {'.'.join(map(str, OLDEST_CAPABILITY))} and "
            f"later, and this one has {'.'.join(map(str, capability))}"
        )
    return None
