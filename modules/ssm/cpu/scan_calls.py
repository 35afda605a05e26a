"""Calls of the scan's C kernels: how the work is cut, what room it needs, and tensors as numbers.

One direction or two go to the kernels in one call. Operators, gradients and choices of backend are in
``modules/ssm/scan/cpu.py``.
"""

from functools import lru_cache
from typing import NamedTuple

import torch

from modules.ssm.cpu.tensors import address, call, counts, floats, rows, view
from modules.ssm.operators import empty_gradients

# FRAMES, and the number of members of scan_args, in scan.h
_FRAMES, _MEMBERS = 16, 74
# a segment of time shorter than this is not worth its second pass
_SHORTEST_SEGMENT = 128
# what the first pass over segments costs, as a part of the second: by counts of instructions
_FIRST_PASS_FORWARD, _FIRST_PASS_BACKWARD = 0.95, 0.65


class ScanDirection(NamedTuple):
    """The tensors of one direction, as :func:`modules.ssm.selective_scan` takes them."""

    u: torch.Tensor
    delta: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor | None
    bias: torch.Tensor | None
    initial_state: torch.Tensor | None
    reverse: bool


class _ReadyScan:
    """One direction as the kernels read it, kept alive while its addresses are in use."""

    def __init__(self, d):
        self.u, self.delta, self.B, self.C = rows(d.u), rows(d.delta), rows(d.B), rows(d.C)
        self.A, self.D, self.bias = floats(d.A), floats(d.D), floats(d.bias)
        self.initial, self.reverse = floats(d.initial_state), d.reverse

    def numbers(self, sizes, z, lengths, out, last_state, starts):
        """The members of ``scan_args`` up to ``starts``; ``sizes`` are softplus, directions, ..."""
        softplus, *rest = sizes
        return (
            *self.u.shape,
            self.A.shape[1],
            softplus,
            self.reverse,
            *rest,
            address(lengths),
            *view(self.u),
            *view(self.delta),
            *view(z),
            *view(self.B),
            *view(self.C),
            *view(out),
            address(self.A),
            address(self.D),
            address(self.bias),
            address(self.initial),
            address(last_state),
            address(starts),
        )


def results(u, A, directions, save):
    """Empty tensors for output, last state, and with ``save`` the kept states of each direction."""
    batch, time, channels = u.shape
    states = A.shape[1]
    kept = 0
    if save:
        # one before every chunk but the first; room for whole vectors of up to 16 channels
        kept = batch * (time // _FRAMES) * ((channels + 15) // 16 * 16) * states
    return (
        u.new_empty(u.shape),
        u.new_empty(batch, channels, states, dtype=torch.float32),
        *(u.new_empty(kept, dtype=torch.float32) for _ in range(directions)),
    )


def forward(directions, z, lengths, delta_softplus, save):
    """Run the forward kernel.

    Arguments
    ---------
    directions : list
        One or two of :class:`ScanDirection`; the last state is the first one's.
    z, lengths : torch.Tensor, optional
    delta_softplus, save : bool

    Returns
    -------
    tuple
        What :func:`results` makes, filled.
    """
    u, A = directions[0].u, directions[0].A
    out, last_state, *starts = made = results(u, A, len(directions), save)
    threads = torch.get_num_threads()
    width, steps = _forward_plan(*u.shape, threads)
    if steps < u.shape[1] and not _decays(directions, delta_softplus):
        steps = _whole(u.shape[1])
    sizes = (delta_softplus, len(directions), threads, width, steps)
    z, lengths, ready = rows(z), counts(lengths), [_ReadyScan(d) for d in directions]
    numbers = []
    for i, (d, kept) in enumerate(zip(ready, starts, strict=True)):
        members = d.numbers(
            sizes, z, lengths, out, None if i else last_state, kept if save else None
        )
        numbers += members if len(ready) == 1 else (*members, *[0] * (_MEMBERS - len(members)))
    call("scan_forward", *numbers)
    return made


def backward(directions, z, lengths, delta_softplus, grad_out, grad_last, starts):
    """Run the backward kernel.

    Returns
    -------
    (list, torch.Tensor)
        For each direction the gradients of the tensors of :class:`ScanDirection`, in the dtype of each and
        empty for one that was not given; and the gradient of ``z``.
    """
    u = directions[0].u
    batch, time, channels = u.shape
    states = directions[0].A.shape[1]
    threads = torch.get_num_threads()
    width, steps = _backward_plan(*u.shape, threads)
    if steps < time and not _decays(directions, delta_softplus):
        steps = _whole(time)
    groups, segments = -(-channels // width), max(1, -(-time // steps))
    sizes = (delta_softplus, len(directions), threads, width, steps)
    z, lengths, ready = rows(z), counts(lengths), [_ReadyScan(d) for d in directions]
    grad_out, grad_last, (grad_z,) = rows(grad_out), floats(grad_last), empty_gradients([z], u)
    numbers, made, kept = [], [], []
    for i, (d, r, saved) in enumerate(zip(directions, ready, starts, strict=True)):
        grads = empty_gradients(d[:8])
        # A, D, bias and the initial state get float32 gradients first
        gu, gdelta, gA, gB, gC, gD, gbias, ginitial = (
            None if t is None else g.float() if n in (2, 5, 6, 7) else g
            for n, (t, g) in enumerate(zip(d[:8], grads, strict=True))
        )
        sums_A = torch.empty(segments, batch, channels, states)
        sums_channel = torch.empty(2, segments, batch, channels)
        # with one group its sum is the gradient
        sums_B, sums_C = (
            g
            if groups == 1 and g.dtype == torch.float32
            else torch.empty(groups, batch, time, states)
            for g in (gB, gC)
        )
        given = (None if z is None else grad_z, None if i else grad_last)
        kept += (sums_A, sums_channel, sums_B, sums_C)
        numbers += r.numbers(sizes, z, lengths, None, None, saved)
        numbers += (n for t in (grad_out, gu, gdelta, given[0], gB, gC) for n in view(t))
        numbers += map(address, (given[1], gA, gD, gbias, ginitial, *kept[-4:]))
        made.append((grads, (gu, gdelta, gA, gB, gC, gD, gbias, ginitial)))
    call("scan_backward", *numbers)
    return [
        [g if w is None else w.to(g.dtype) for g, w in zip(grads, wide, strict=True)]
        for grads, wide in made
    ], grad_z


@lru_cache(maxsize=256)
def _forward_plan(batch, time, channels, threads):
    """Channels and steps a task."""
    width = _task_channels(range(16, 129, 16), batch, channels, threads)
    tasks = batch * -(-channels // width)
    return width, _segment_steps(tasks, time, threads, _FIRST_PASS_FORWARD)


@lru_cache(maxsize=256)
def _backward_plan(batch, time, channels, threads):
    """Channels and steps a task: the width that shares the work out best among eight threads.

    It follows from the shape alone, so that sums over channels are added in one order for any number
    of threads as long as time is not cut. Narrower groups would need more room for those sums.
    """
    width = _task_channels(range(48, 129, 16), batch, channels, 8)
    tasks = batch * -(-channels // width)
    return width, _segment_steps(tasks, time, threads, _FIRST_PASS_BACKWARD)


def _task_channels(widths, batch, channels, threads):
    """The width, a multiple of a cache line, that leaves the busiest thread the least to do.

    The wider, the longer the stretches of memory that a task reads: measured at 16, 32, 64 and 128 channels, a
    channel costs 1.25, 1.15, 1.08 and 1.04 times what it does at 256.
    """
    return min(widths, key=lambda w: -(-batch * -(-channels // w) // threads) * w * (1 + 5 / w))


def _segment_steps(tasks, time, threads, first_pass):
    """Steps a task, where cutting time pays; else all of them.

    Whole utterances keep the busiest thread at ``ceil(tasks / threads)`` units of work. In ``n`` segments
    it has ``ceil(n tasks / threads) / n`` of them, but about ``1 + first_pass`` times: once for what each
    segment but one does to a state of zeros, once from the state that follows. So time is cut only where
    there are well over two threads a task; a gain under a quarter is left alone.
    """
    best, least = _whole(time), 0.75 * -(-tasks // threads)
    for segments in range(2, time // _SHORTEST_SEGMENT + 1):
        if tasks >= 2 * threads or segments > 2 * threads:
            break
        steps = -(-time // (segments * _FRAMES)) * _FRAMES
        count = -(-time // steps)
        cost = -(-tasks * count // threads) / count * (1 + first_pass * (count - 1) / count)
        if cost < least:
            best, least = steps, cost
    return best


def _whole(time):
    """Steps of a task that runs through all of the time."""
    return max(_FRAMES, -(-time // _FRAMES) * _FRAMES)


def _decays(directions, delta_softplus):
    """Whether no state grows: what a whole segment makes of one could otherwise be too large a number."""
    return delta_softplus and all(bool((d.A <= 0).all()) for d in directions)
