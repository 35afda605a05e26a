"""The most memory of the process, or of its GPU, from a moment on."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_MB = 2**20


class PeakMemory:
    """The most memory since this object was made.

    Arguments
    ---------
    device : str or torch.device
        Of ``cuda``, the memory that torch has allocated there. Otherwise the resident memory of the process; on
        systems other than Linux since the process began, since they do not forget their maximum.

    Example
    -------
    >>> PeakMemory("cpu").peak_mb() > 1
    True
    """

    def __init__(self, device):
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with suppress(OSError):
            # Linux forgets the maximum of a process that writes 5 here
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def wait(self):
        """Wait until the device has done its work, so that times are whole."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def peak_mb(self):
        """The most memory, in MB of 2**20 bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / _MB
        with suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            line = next(one for one in lines.splitlines() if one.startswith("VmHWM:"))
            return int(line.split()[1]) / 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (_MB if sys.platform == "darwin" else 1024)
