"""Inference with fewer large temporary tensors on a CPU: activations in place, and frames in blocks.

A large tensor that comes and goes costs more than the arithmetic on it, because the system finds and clears its pages
every time. So where nothing reads an intermediate tensor afterwards, an activation overwrites its input, and a
feed-forward module takes 512 frames at a time: its inner tensor stays in the cache.

Measured with one thread on an AMD EPYC (minimum of 25 runs, GELU), a feed-forward module of 144 and 1024 channels
takes 38 ms in place of 47 ms for 4,500 frames (180 s of speech), one of 512 and 2048 channels 210 ms in place of
248 ms. At 1,500 frames both ways take the same time.
"""

import torch
from speechbrain.nnet.activations import Swish
from torch import nn
from torch.nn import functional as F

# frames of a block
BLOCK = 512


def nothing_watches():
    """Whether operations just run, neither differentiated nor recorded by a compiler or tracer."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not torch.is_grad_enabled() and not recorded


def activate(activation, x):
    """``activation(x)``, written over ``x`` where nothing watches: the caller must not read ``x`` again.

    Arguments
    ---------
    activation : torch.nn.Module
        A module; GELU and Swish are written in place.
    x : torch.Tensor

    Returns
    -------
    torch.Tensor

    Example
    -------
    >>> with torch.no_grad():
    ...     x = torch.zeros(3)
    ...     activate(nn.GELU(), x) is x, activate(nn.ReLU(), x) is x
    (True, False)
    """
    if nothing_watches():
        if type(activation) is nn.GELU:
            return torch.ops.aten.gelu_(x, approximate=activation.approximate)
        if type(activation) is Swish and activation.beta == 1:
            return F.silu(x, inplace=True)
    return activation(x)


def in_blocks(function, x, training):
    """``function(x)`` for a function of each frame by itself, a block of frames at a time where nothing watches.

    Training never runs in blocks. Dropout would draw other masks, and reentrant checkpointing runs a module
    without gradients first and with them later.

    Arguments
    ---------
    function : callable
        From (batch, frames, channels) to the same shape or another width.
    x : torch.Tensor
        (batch, time, channels).
    training : bool
        Whether the module that calls is in training.

    Returns
    -------
    torch.Tensor
        (batch, time, channels of the function).

    Example
    -------
    >>> sizes = []
    >>> def double(frames):
    ...     sizes.append(frames.shape[1])
    ...     return 2 * frames
    >>> with torch.no_grad():
    ...     in_blocks(double, torch.ones(1, 1100, 4), training=False).shape, sizes
    (torch.Size([1, 1100, 4]), [512, 512, 76])
    """
    # asked in this order: a compiler that keeps the number of frames open must not meet the last condition
    alone = nothing_watches() and not training
    if alone and x.device.type == "cpu" and x.shape[1] > BLOCK:
        return torch.cat([function(frames) for frames in x.split(BLOCK, 1)], 1)
    return function(x)
