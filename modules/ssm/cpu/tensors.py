"""How tensors are handed to the C kernels: 64-bit numbers, in the order of the kernels' structs."""

import ctypes
from functools import cache

import torch

from modules.ssm.cpu.build import library

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_ABSENT = (0, 0, 0, 0)


def takes(*tensors):
    """Whether the kernels know the dtypes of all tensors (``None`` among them is fine)."""
    return all(t is None or t.dtype in _TYPES for t in tensors)


def rows(x):
    """``x`` (batch, time, channels), copied only if its channels do not lie side by side."""
    if x is None or x.stride(-1) == 1 or x.shape[-1] == 1:
        return x
    return x.contiguous()


def floats(x):
    """``x`` as contiguous float32, copied only if it is not."""
    return None if x is None else x.to(torch.float32).contiguous()


def counts(lengths):
    """Frame counts as contiguous int64."""
    return None if lengths is None else lengths.to(torch.int64).contiguous()


def view(x):
    """The four numbers of a kernel's ``view``."""
    if x is None:
        return _ABSENT
    return (x.data_ptr(), x.stride(0), x.stride(1), _TYPES[x.dtype])


def address(x):
    """Address of a contiguous tensor, 0 for ``None``."""
    return 0 if x is None else x.data_ptr()


def call(name, *numbers):
    """Run the kernel ``mamba_speech_<name>``.

    Raises
    ------
    MemoryError
        If it found no room for its work buffers.
    """
    if _kernel(name)((ctypes.c_int64 * len(numbers))(*numbers)):
        raise MemoryError(f"no memory for the work buffers of {name}: use smaller batches")


@cache
def _kernel(name):
    return getattr(library(), f"mamba_speech_{name}")
