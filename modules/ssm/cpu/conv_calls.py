"""Calls of the convolution's C kernels: the room they need, and tensors as numbers.

One direction or two go to the kernels in one call. Operators and gradients are in
``modules/ssm/conv/cpu.py``.
"""

from typing import NamedTuple

import torch

from modules.ssm.cpu.tensors import address, call, counts, floats, rows, view
from modules.ssm.operators import empty_gradients

# the number of members of conv_args, in conv.c
_MEMBERS = 35


class ConvDirection(NamedTuple):
    """The parameters of one direction, as :func:`modules.ssm.causal_conv1d` takes them."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    initial_state: torch.Tensor | None
    reverse: bool


class _ReadyConv:
    """One direction as the kernels read it, kept alive while its addresses are in use."""

    def __init__(self, d):
        self.weight, self.bias = floats(d.weight), floats(d.bias)
        self.initial, self.reverse = floats(d.initial_state), d.reverse

    def numbers(self, x, options, directions, lengths, out, last):
        """The members of ``conv_args`` up to ``last``."""
        silu, ahead = options
        return (
            *x.shape,
            self.weight.shape[1],
            silu,
            self.reverse,
            ahead,
            directions,
            torch.get_num_threads(),
            address(lengths),
            *view(x),
            *view(out),
            address(self.weight),
            address(self.bias),
            address(self.initial),
            address(last),
        )


def results(x, weight, directions):
    """Empty tensors for the output of each direction, and for the last state."""
    batch, _, channels = x.shape
    outputs = (x.new_empty(x.shape) for _ in range(directions))
    return *outputs, x.new_empty(batch, channels, weight.shape[1])


def forward(x, directions, lengths, options):
    """Run the forward kernel.

    Arguments
    ---------
    x : torch.Tensor
    directions : list
        One or two of :class:`ConvDirection`; the last state is the first one's.
    lengths : torch.Tensor, optional
    options : (bool, int)
        Whether SiLU follows, and the frames that an output sees ahead.

    Returns
    -------
    tuple
        What :func:`results` makes, filled.
    """
    *outputs, last = results(x, directions[0].weight, len(directions))
    x, lengths, ready = rows(x), counts(lengths), [_ReadyConv(d) for d in directions]
    # the kernel writes the state in float32
    state = last.float()
    numbers = []
    for i, (d, out) in enumerate(zip(ready, outputs, strict=True)):
        members = d.numbers(x, options, len(ready), lengths, out, None if i else state)
        numbers += members if len(ready) == 1 else (*members, *[0] * (_MEMBERS - len(members)))
    call("conv_forward", *numbers)
    return *outputs, state.to(last.dtype)


def backward(x, directions, lengths, options, grad_outs, grad_last):
    """Run the backward kernel.

    Returns
    -------
    (torch.Tensor, list)
        The gradient of ``x``; and for each direction the gradients of weight, bias and initial state.
        Each has its tensor's dtype. It is empty for a tensor that was not given.
    """
    batch, _, channels = x.shape
    grad_x = x.new_empty(x.shape)
    x, lengths, ready = rows(x), counts(lengths), [_ReadyConv(d) for d in directions]
    grad_outs, grad_last = [rows(g) for g in grad_outs], floats(grad_last)
    numbers, made, kept = [], [], []
    for i, (d, r) in enumerate(zip(directions, ready, strict=True)):
        grads = empty_gradients(d[:3], x)
        # computed in float32
        wide = [None if t is None else g.float() for t, g in zip(d[:3], grads, strict=True)]
        kept.append(torch.empty(batch, channels, d.weight.shape[1] + 1))
        numbers += r.numbers(x, options, len(ready), lengths, None, None)
        numbers += (*view(grad_outs[i]), *view(grad_x), address(None if i else grad_last))
        numbers += map(address, (*wide, kept[-1]))
        made.append((grads, wide))
    call("conv_backward", *numbers)
    return grad_x, [
        [g if w is None else w.to(g.dtype) for g, w in zip(grads, wide, strict=True)]
        for grads, wide in made
    ]
