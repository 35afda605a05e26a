"""What training costs in seconds and memory, over all epochs and resumes."""

import resource
import sys
import time
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks

_PROCESS_STATUS = Path("/proc/self/status")


@register_checkpoint_hooks
class TrainingCost:
    """Seconds of training and the most memory it held, over all epochs and resumes; a recoverable.

    A checkpoint within an epoch knows what that epoch has taken so far, so that its seconds are all of them, too.

    Arguments
    ---------
    device : str or torch.device
        Whose memory counts.

    Example
    -------
    >>> cost = TrainingCost("cpu")
    >>> cost.start()
    >>> cost.stop()
    >>> 0 < cost.seconds == cost.epoch_seconds < 1 and cost.peak_memory_mb > 1
    True
    """

    def __init__(self, device):
        self.device = torch.device(device)
        self._seconds, self._peak, self._began = 0.0, 0.0, None
        self._before_epoch = 0.0

    def start(self, resumed=False):
        """An epoch of training begins.

        Arguments
        ---------
        resumed : bool
            Whether it goes on where a checkpoint within it was saved.
        """
        self.stop()
        if not resumed:
            self._before_epoch = self._seconds
        self._began = time.monotonic()

    def stop(self):
        """The epoch of training ends. Without one, nothing happens."""
        self._seconds, self._began = self.seconds, None

    @property
    def seconds(self):
        """Seconds of training so far, the running epoch included."""
        return self._seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    @property
    def epoch_seconds(self):
        """Seconds of the epoch that runs, or that ran last."""
        return self.seconds - self._before_epoch

    @property
    def peak_memory_mb(self):
        """The most memory so far, in MB: of this process, or of earlier ones that its checkpoint knows of."""
        return max(self._peak, peak_memory_mb(self.device))

    @mark_as_saver
    def save(self, path):
        """Write the figures to ``path``."""
        state = {"seconds": self.seconds, "before_epoch": self._before_epoch}
        torch.save(state | {"peak_memory_mb": self.peak_memory_mb}, path)

    @mark_as_loader
    def load(self, path, end_of_epoch=False):
        """Read what earlier processes spent; an earlier checkpoint than the last takes nothing back."""
        del end_of_epoch
        state = torch.load(path, weights_only=True)
        if state["seconds"] >= self._seconds:
            self._seconds = state["seconds"]
            self._before_epoch = state["before_epoch"]
        self._peak = max(self._peak, state["peak_memory_mb"])


def peak_memory_mb(device):
    """The most memory that this process has held so far, in MB of 2**20 bytes.

    Arguments
    ---------
    device : torch.device
        CUDA: what torch had allocated there. Otherwise: resident memory of the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _PROCESS_STATUS.exists():
        # unlike getrusage's figure, this one is not handed on by the program that started us
        lines = _PROCESS_STATUS.read_text(encoding="utf-8").splitlines()
        kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        if kilobytes:
            return int(kilobytes[0]) / 2**10
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (2**20 if sys.platform == "darwin" else 2**10)
