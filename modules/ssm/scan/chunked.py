"""The ``torch`` backend: a vectorised selective scan for any device that torch has, with bounded memory.

Time is cut into chunks. Inside a chunk everything but the recurrence is one tensor operation over
(frames, batch, channels, states); between chunks only the state is kept. The backward pass walks the
chunks in the opposite order, computes each chunk's states again from the state at its start, and
applies the gradients' formulas by hand, so that no more than a few chunks' worth of
frames x channels x states ever exists.
"""

import torch
from torch.nn import functional as F

from modules.ssm.masking import valid_frames
from modules.ssm.scan.naive import compute_dtype

# frames a chunk: near the memory optimum of (time / chunk) saved states and about five work buffers
_CPU_FRAMES = 32
# elements of one work buffer elsewhere, where few large launches are faster
_DEVICE_ELEMENTS = 2**25


def selective_scan_chunked(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    *,
    lengths=None,
    reverse=False,
    initial_state=None,
    frames=None,
    rows=None,
):
    """Selective scan in chunks; arguments and results as in :func:`selective_scan_naive`.

    Arguments
    ---------
    frames : int, optional
        Frames a chunk.
    rows : int, optional
        Pieces of a chunk whose recurrences run side by side before their states are joined: fewer and
        larger steps, at the price of more arithmetic. 1 is best on a CPU.
    """
    valid = valid_frames(lengths, u.shape[1], u.device)
    if frames is None:
        frames, rows = _plan(u, A)
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    # inside the Function gradients are off, whatever the caller's mode
    keep = torch.is_grad_enabled()
    options = (delta_softplus, valid, reverse, max(1, frames), rows or 1, keep)
    return _ChunkedScan.apply(*tensors, *options)


def _plan(u, A):
    """Chunk size in frames, and rows."""
    if u.device.type == "cpu":
        return _CPU_FRAMES, 1
    per_frame = max(1, u.shape[0] * u.shape[2] * A.shape[1])
    frames = min(max(16, _DEVICE_ELEMENTS // per_frame), max(1, u.shape[1]))
    rows = 1
    while 4 * rows * rows <= frames:
        rows *= 2
    return -(-frames // rows) * rows, rows


class _ChunkedScan(torch.autograd.Function):
    """The scan over all chunks; the arithmetic of one chunk is in :class:`_Chunk`."""

    @staticmethod
    def forward(
        ctx,
        u,
        delta,
        A,
        B,
        C,
        D,
        z,
        delta_bias,
        initial_state,
        softplus,
        valid,
        reverse,
        frames,
        rows,
        keep,
    ):
        dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
        inputs = (u, delta, A, B, C, D, z, delta_bias)
        bounds = _bounds(u.shape[1], frames, reverse)
        state = (
            torch.zeros(u.shape[0], *A.shape, dtype=dtype, device=u.device)
            if initial_state is None
            else initial_state.to(dtype, copy=True)
        )
        out = torch.empty_like(u, memory_format=torch.contiguous_format)
        keep = keep and any(ctx.needs_input_grad)
        starts = state.new_empty(len(bounds) if keep else 0, *state.shape)
        work = _workspace(state, bounds, buffers=2)
        with torch.autocast(u.device.type, enabled=False):
            for index, (start, stop) in enumerate(bounds):
                if keep:
                    starts[index] = state
                chunk = _Chunk(inputs, softplus, valid, start, stop, dtype, work)
                states = chunk.states(state, reverse, rows)
                out[:, start:stop] = chunk.output(states)
                state.copy_(states[0 if reverse else -1])
        ctx.save_for_backward(*inputs, valid, starts)
        ctx.options = softplus, reverse, rows, bounds, dtype
        ctx.initial_dtype = None if initial_state is None else initial_state.dtype
        return out, state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, grad_last):
        softplus, reverse, rows, bounds, dtype = ctx.options
        *inputs, valid, starts = ctx.saved_tensors
        u, delta, A, B, C, D, z, delta_bias = inputs
        grads = {
            "u": torch.empty_like(u, memory_format=torch.contiguous_format),
            "delta": torch.empty_like(delta, memory_format=torch.contiguous_format),
            "A": torch.zeros_like(A, dtype=dtype),
            "B": torch.empty_like(B, memory_format=torch.contiguous_format),
            "C": torch.empty_like(C, memory_format=torch.contiguous_format),
            "D": None if D is None else torch.zeros_like(D, dtype=dtype),
            "z": None if z is None else torch.empty_like(z, memory_format=torch.contiguous_format),
            "bias": None if delta_bias is None else torch.zeros_like(delta_bias, dtype=dtype),
        }
        carry = grad_last.to(dtype)
        work = _workspace(starts[0] if bounds else carry, bounds, buffers=3)
        with torch.autocast(u.device.type, enabled=False):
            for index in range(len(bounds) - 1, -1, -1):
                start, stop = bounds[index]
                chunk = _Chunk(inputs, softplus, valid, start, stop, dtype, work)
                carry = chunk.backward(
                    grad_out[:, start:stop], starts[index], carry, reverse, rows, grads
                )
        for name, tensor in (("A", A), ("D", D), ("bias", delta_bias)):
            if tensor is not None:
                grads[name] = grads[name].to(tensor.dtype)
        grad_initial = None if ctx.initial_dtype is None else carry.to(ctx.initial_dtype)
        return *grads.values(), grad_initial, None, None, None, None, None, None


class _Chunk:
    """Frames ``start..stop`` of the scan's inputs, time first, in the dtype of the computation.

    Invalid frames get a step and an input of 0, so that the state passes them unchanged. ``work``
    holds buffers of (frames, batch, channels, states) that all chunks share: allocating them anew
    for every chunk fragments the heap, at times up to the size of the whole state history.
    """

    def __init__(self, inputs, softplus, valid, start, stop, dtype, work):
        u, delta, A, B, C, D, z, delta_bias = inputs
        self.span = slice(start, stop)
        self.valid = None if valid is None else valid[:, start:stop].transpose(0, 1)

        def take(x):
            if x is None:
                return None
            x = x[:, start:stop].transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
            return x if self.valid is None else x.masked_fill(~self.valid.unsqueeze(-1), 0.0)

        self.u, self.B, self.C, self.z = take(u), take(B), take(C), take(z)
        self.A = A.to(dtype)
        self.D = None if D is None else D.to(dtype)
        step = take(delta)
        if delta_bias is not None:
            step = step + delta_bias.to(dtype)
        self.softplus = softplus
        self.step_input = step
        dt = F.softplus(step) if softplus else step
        self.dt = dt if self.valid is None else dt.masked_fill(~self.valid.unsqueeze(-1), 0.0)
        self.x = self.dt * self.u  # (frames, batch, channels)
        self.work = [buffer[: stop - start] for buffer in work]
        self.decay = torch.mul(self.dt.unsqueeze(-1), self.A, out=self.work[0]).exp_()

    def states(self, initial, reverse, rows):
        """States after each frame, (frames, batch, channels, states)."""
        h = torch.mul(self.x.unsqueeze(-1), self.B.unsqueeze(2), out=self.work[1])
        return _recurrence(self.decay, h, initial, reverse, rows)

    def output(self, states):
        """The chunk's output, (batch, frames, channels)."""
        y = self._contract(states)
        if self.z is not None:
            y = y * F.silu(self.z)
        if self.valid is not None:
            y = y.masked_fill(~self.valid.unsqueeze(-1), 0.0)
        return y.transpose(0, 1)

    def _contract(self, states):
        y = torch.matmul(states, self.C.unsqueeze(-1)).squeeze(-1)
        return y if self.D is None else torch.addcmul(y, self.u, self.D)

    def backward(self, grad_out, initial, carry, reverse, rows, grads):
        """Write this chunk's gradients into ``grads``; returns the gradient of the state before it.

        ``carry`` is the gradient that reaches the chunk's last state from what follows.
        """
        h = self.states(initial, reverse, rows)
        g = grad_out.transpose(0, 1).to(self.dt.dtype)
        if self.valid is not None:
            g = g.masked_fill(~self.valid.unsqueeze(-1), 0.0)
        if self.z is not None:
            sigmoid = torch.sigmoid(self.z)
            self._put(grads["z"], g * self._contract(h) * sigmoid * (1 + self.z * (1 - sigmoid)))
            g = g * self.z * sigmoid
        if self.D is not None:
            grads["D"] += (g * self.u).sum((0, 1))

        self._put(grads["C"], torch.matmul(g.unsqueeze(2), h).squeeze(2))
        # gradient of each frame's state: its own output's, and the next frame's through the decay
        grad_h = torch.mul(g.unsqueeze(-1), self.C.unsqueeze(2), out=self.work[2])
        grad_h, carry = _adjoint_recurrence(self.decay, grad_h, carry, reverse, rows)
        self._put(grads["B"], torch.matmul(self.x.unsqueeze(2), grad_h).squeeze(2))
        grad_x = torch.matmul(grad_h, self.B.unsqueeze(-1)).squeeze(-1)

        # gradient of dt * A, in grad_h's place: grad_h * decay * previous state
        grad_h *= self.decay
        if reverse:
            grad_h[:-1] *= h[1:]
            grad_h[-1] *= initial
        else:
            grad_h[1:] *= h[:-1]
            grad_h[0] *= initial
        # the decay has served: its buffer takes one more product
        grad_dt = torch.mul(grad_h, self.A, out=self.decay).sum(-1)
        grad_dt = torch.addcmul(grad_dt, grad_x, self.u)
        grads["A"] += grad_h.mul_(self.dt.unsqueeze(-1)).sum((0, 1))

        grad_u = grad_x * self.dt
        if self.D is not None:
            grad_u = torch.addcmul(grad_u, g, self.D)
        if self.softplus:
            grad_dt = torch.where(
                self.step_input > 20, grad_dt, grad_dt * torch.sigmoid(self.step_input)
            )
        if self.valid is not None:
            grad_dt = grad_dt.masked_fill(~self.valid.unsqueeze(-1), 0.0)
        if grads["bias"] is not None:
            grads["bias"] += grad_dt.sum((0, 1))
        self._put(grads["u"], grad_u)
        self._put(grads["delta"], grad_dt)
        return carry

    def _put(self, target, value):
        target[:, self.span] = value.transpose(0, 1)


def _workspace(state, bounds, buffers):
    """Buffers for the longest chunk, (frames, batch, channels, states) each."""
    frames = max((stop - start for start, stop in bounds), default=0)
    return [state.new_empty(frames, *state.shape) for _ in range(buffers)]


def _bounds(time, frames, reverse):
    bounds = [(start, min(start + frames, time)) for start in range(0, time, frames)]
    return bounds[::-1] if reverse else bounds


def _recurrence(decay, h, initial, reverse, rows=1):
    """``h[t] += decay[t] * h[t - 1]`` over the first dimension, in place; ``h[-1]`` is ``initial``.

    With ``rows > 1`` the frames are cut into that many rows which run side by side from zero states;
    each row's true start is then added, multiplied by the decay since the row began.
    """
    if rows == 1 or h.shape[0] < 2 * rows:
        previous = initial
        steps = zip(decay.unbind(0), h.unbind(0), strict=True)
        for a, current in reversed(list(steps)) if reverse else steps:
            previous = torch.addcmul(current, a, previous, out=current)
        return h

    frames = h.shape[0]
    columns = frames // rows
    whole = rows * columns
    # the frames that do not fill a row are processed last, one by one
    body, rest = (
        (slice(frames - whole, frames), slice(0, frames - whole))
        if reverse
        else (
            slice(0, whole),
            slice(whole, frames),
        )
    )
    a = decay[body].unflatten(0, (rows, columns)).clone()
    x = h[body].unflatten(0, (rows, columns))
    order = range(columns - 2, -1, -1) if reverse else range(1, columns)
    back = 1 if reverse else -1
    for t in order:
        x[:, t].addcmul_(a[:, t], x[:, t + back])
        a[:, t] *= a[:, t + back]
    previous = initial
    for row in range(rows - 1, -1, -1) if reverse else range(rows):
        x[row].addcmul_(a[row], previous)
        previous = x[row, 0 if reverse else -1]
    if rest.stop > rest.start:
        _recurrence(decay[rest], h[rest], previous, reverse)
    return h


def _adjoint_recurrence(decay, grad, carry, reverse, rows):
    """``grad[t] += decay[t + 1] * grad[t + 1]``, in place, ``carry`` being added to the last frame.

    Returns ``grad`` and the gradient of the state before the first frame.
    """
    first, last = (-1, 0) if reverse else (0, -1)
    grad[last] += carry
    if reverse:
        _recurrence(decay[:-1], grad[1:], grad[0], False, rows)
    else:
        _recurrence(decay[1:], grad[:-1], grad[-1], True, rows)
    return grad, decay[first] * grad[first]
