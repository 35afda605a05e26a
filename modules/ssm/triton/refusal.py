"""Where Triton's kernels can run at all."""

import importlib.util
import os
from functools import cache


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
    return None
