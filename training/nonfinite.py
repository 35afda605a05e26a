"""Losses that are no numbers: the batch is skipped as if it had not been, and the training ends after too many."""

import logging

import torch
from speechbrain.processing.features import InputNormalization
from torch.nn.modules.batchnorm import _BatchNorm

logger = logging.getLogger(__name__)

# names in one line of the log
_NAMED = 8


class RunningStatistics:
    """Statistics that a forward pass updates, kept so that a bad batch can be taken back.

    Arguments
    ---------
    modules : torch.nn.Module
        Networks whose batch normalisation and SpeechBrain InputNormalization are kept.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> statistics = RunningStatistics(norm)
    >>> statistics.keep()
    >>> _ = norm(torch.full((3, 2), torch.nan))
    >>> statistics.restore()
    >>> norm.running_mean.tolist(), norm.num_batches_tracked.item()
    ([0.0, 0.0], 0)
    """

    def __init__(self, modules):
        self._buffers = [
            buffer
            for module in modules.modules()
            if isinstance(module, _BatchNorm)
            for buffer in module.buffers(recurse=False)
        ]
        self._copies = [buffer.clone() for buffer in self._buffers]
        self._inputs = [m for m in modules.modules() if isinstance(m, InputNormalization)]
        self._values = []

    @torch.no_grad()
    def keep(self):
        """Keep the statistics as they are now."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)
        self._values = [_statistics_of(module) for module in self._inputs]

    @torch.no_grad()
    def restore(self):
        """Put the statistics back as they were kept."""
        for buffer, copy in zip(self._buffers, self._copies, strict=True):
            buffer.copy_(copy)
        for module, values in zip(self._inputs, self._values, strict=True):
            vars(module).update(values)


def _statistics_of(module):
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in vars(module).items()
        if name in ("glob_mean", "glob_std", "count")
    }


def in_any_process(bad, device):
    """Whether something is so in any process of a distributed run."""
    if not torch.distributed.is_initialized():
        return bad
    flag = torch.tensor(float(bad), device=device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


def all_names(names):
    """Names that the processes of a distributed run give, in the order of the processes."""
    if not torch.distributed.is_initialized():
        return names
    every = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, names)
    return [name for some in every for name in some]


def names_of(batch, step):
    """The names of a batch's items, or where the batch stands in its epoch."""
    names = getattr(batch, "id", None)
    return [str(name) for name in names] if names is not None else [f"batch {step}"]


def shown(names):
    """Names for one line of the log.

    Example
    -------
    >>> shown(["a", "b"])
    'a, b'
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def finite_gradients(parameters):
    """Whether all gradients are finite numbers.

    Their norm tells in one step, but for finite gradients whose squares overflow.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients or bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
        return True
    return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
