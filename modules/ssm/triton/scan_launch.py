"""From tensors to launches of the Triton scan's kernels."""

import torch

from modules.ssm.triton.plan import KEEP, MAX_OFFSET
from modules.ssm.triton.scan_backward import scan_backward
from modules.ssm.triton.scan_chunks import chunk_gradients, chunk_starts, chunk_states
from modules.ssm.triton.scan_forward import scan_forward
from modules.ssm.triton.scan_pairs import pack_pairs, unpack_pairs

_ROWS = 32  # frames a program of the kernels that pack and unpack B and C


class Scan:
    """One scan, or both directions of one, ready to be launched.

    Arguments
    ---------
    first, second : tuple
        u, delta, A, B, C, D and delta_bias of a direction; all of ``second`` are ``None`` if there is
        only one.
    z, initial_state, lengths : torch.Tensor or None
        The gate of both directions, the initial state of the first, the frame counts.
    delta_softplus, reverse : bool
        ``reverse`` turns the only direction round; the second of two always runs backwards.
    """

    def __init__(self, first, second, z, initial_state, lengths, delta_softplus, reverse):
        self.directions = 1 if second[0] is None else 2
        sides = (first, second)[: self.directions]
        u, delta, A, B, C, D, bias = zip(*sides, strict=True)
        self.device = u[0].device
        self.sizes = (*u[0].shape, A[0].shape[1])
        self.given = [t is not None for t in (*first, *second, z, initial_state)]
        self.u, self.delta, self.B, self.C = (_alike(pair) for pair in (u, delta, B, C))
        self.z = None if z is None else _rows(z)
        self.A, self.D, self.bias = _stacked(A), _stacked(D), _stacked(bias)
        self.initial = _floats(initial_state)
        self.lengths = None if lengths is None else lengths.contiguous()
        self.steps = -(-self.sizes[1] // KEEP) * KEEP
        self.constants = {"DIRECTIONS": self.directions, "REVERSE": reverse}
        self.options = self.constants | {"N": self.sizes[3], "SOFTPLUS": delta_softplus}
        self.pairs = self._pack()

    @property
    def rows(self):
        """Utterances times directions."""
        return self.directions * self.sizes[0]

    def forward(self, plan, out, last, saved):
        """Write ``out`` (batch, time, channels), ``last`` (batch, channels, states) and ``saved``."""
        _, time, channels, states = self.sizes
        step = plan.forward
        _, chunks = step.chunks(time)
        starts = None
        if chunks > 1:
            starts = self._empty(self.rows, chunks, states, channels)
            sums = self._empty(self.rows, chunks, channels)
            chunk_states[self._grid(step, chunks)](
                *self.u,
                *self.delta,
                self.A,
                self.pairs,
                self.bias,
                self.lengths,
                starts,
                sums,
                *self._numbers(step),
                *_strides(self.u[0], self.delta[0]),
                **self._options(step),
            )
            self._follow(starts, sums, self.initial, step, False)
        both = self.directions == 2
        outs = out.new_empty(2, *out.shape) if both else out
        lasts = last.new_empty(2, *last.shape) if both else last
        scan_forward[self._grid(step, chunks)](
            *self.u,
            *self.delta,
            self.z,
            self.A,
            self.pairs,
            self.D,
            self.bias,
            self.lengths,
            self.initial,
            starts,
            outs,
            lasts,
            saved,
            *self._numbers(step),
            *_strides(self.u[0], self.delta[0], self.z),
            **self._options(step),
            KEEP=KEEP,
        )
        if both:
            torch.add(outs[0], outs[1], out=out)
            last.copy_(lasts[0])

    def backward(self, plan, grad_out, grad_last, saved):
        """Gradients of the tensors as they were given, ``None`` for those that were not."""
        batch, time, channels, states = self.sizes
        rows, step = self.rows, plan.backward
        _, chunks = step.chunks(time)
        grad_out, grad_last = _rows(grad_out), _floats(grad_last)
        blocks = -(-channels // step.block)
        carries = self._carries(step, grad_out, grad_last)
        grad_u, grad_delta = (
            t[0].new_empty(self.directions, batch, time, channels) for t in (self.u, self.delta)
        )
        grad_z = None
        if self.z is not None:
            grad_z = self.z.new_empty(self.directions, batch, time, channels)
        sums_A = torch.zeros_like(carries)
        sums_pairs = self._empty(rows, blocks, self.steps, states, dtype=torch.int64)
        sums = self._empty(2, self.directions, batch, chunks, channels)
        inner = KEEP // step.frames - 1
        scratch = self._empty(rows, chunks, inner, states, channels) if inner else None
        scan_backward[self._grid(step, chunks)](
            *self.u,
            *self.delta,
            self.z,
            grad_out,
            self.A,
            self.pairs,
            self.D,
            self.bias,
            self.lengths,
            carries,
            saved,
            scratch,
            grad_u,
            grad_delta,
            grad_z,
            sums_A,
            sums_pairs,
            sums[0],
            sums[1],
            *self._numbers(step),
            *_strides(self.u[0], self.delta[0], self.z, grad_out),
            **self._options(step),
            KEEP=KEEP,
        )
        grad_B, grad_C = self._unpack(sums_pairs)
        grad_A = sums_A.view(self.directions, batch * chunks, states, channels).sum(1).mT
        grad_D, grad_bias = sums.sum((2, 3))
        sides = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_bias)
        found = [g[d] if d < self.directions else None for d in (0, 1) for g in sides]
        grad_initial = carries.view(rows, chunks, states, channels)[:batch, 0].mT
        if grad_z is not None and self.directions == 2:
            grad_z = grad_z[0] + grad_z[1]
        elif grad_z is not None:
            grad_z = grad_z[0]
        found += [grad_z, grad_initial]
        return [g if given else None for g, given in zip(found, self.given, strict=True)]

    def _carries(self, step, grad_out, grad_last):
        """The gradient of the state after every chunk, (rows, chunks, states, channels)."""
        batch, time, channels, states = self.sizes
        _, chunks = step.chunks(time)
        if chunks == 1:
            carries = torch.zeros(
                self.rows, 1, states, channels, dtype=torch.float32, device=self.device
            )
            if grad_last is not None:
                carries[:batch, 0] = grad_last.mT
            return carries
        carries = self._empty(self.rows, chunks, states, channels)
        sums = self._empty(self.rows, chunks, channels)
        chunk_gradients[self._grid(step, chunks)](
            *self.delta,
            self.z,
            grad_out,
            self.A,
            self.pairs,
            self.bias,
            self.lengths,
            carries,
            sums,
            *self._numbers(step),
            *_strides(self.delta[0], self.z, grad_out),
            **self._options(step),
        )
        self._follow(carries, sums, grad_last, step, True)
        return carries

    def _follow(self, values, sums, ends, step, last_first):
        """Replace what every chunk adds to the state by what it begins with."""
        batch, time, channels, states = self.sizes
        block = 128
        chunk_starts[(self.rows * states * -(-channels // block),)](
            values,
            sums,
            self.A,
            ends,
            batch,
            channels,
            step.chunks(time)[1],
            N=states,
            BLOCK=block,
            LAST_FIRST=last_first,
            num_warps=4,
        )

    def _pack(self):
        batch, time, _, states = self.sizes
        pairs = self._empty(self.rows, self.steps, states, dtype=torch.int64)
        pack_pairs[(self.rows * -(-self.steps // _ROWS),)](
            *self.B,
            *self.C,
            self.lengths,
            pairs,
            batch,
            time,
            self.steps,
            *_strides(self.B[0], self.C[0]),
            N=states,
            WIDTH=_power_of_two(states),
            ROWS=_ROWS,
            **self.constants,
        )
        return pairs

    def _unpack(self, sums):
        """Gradients of B and C, (directions, batch, time, states)."""
        batch, time, _, states = self.sizes
        shape = (self.directions, batch, time, states)
        grad_B, grad_C = self.B[0].new_empty(shape), self.C[0].new_empty(shape)
        unpack_pairs[(self.rows * -(-time // _ROWS),)](
            sums,
            self.lengths,
            grad_B,
            grad_C,
            batch,
            time,
            self.steps,
            sums.shape[1],
            N=states,
            WIDTH=_power_of_two(states),
            ROWS=_ROWS,
            **self.constants,
        )
        return grad_B, grad_C

    def _grid(self, step, chunks):
        return (self.rows * chunks * -(-self.sizes[2] // step.block),)

    def _numbers(self, step):
        batch, time, channels, _ = self.sizes
        return batch, time, channels, *step.chunks(time), self.steps

    def _options(self, step):
        return self.options | {
            "BLOCK": step.block,
            "FRAMES": step.frames,
            "num_warps": step.warps,
        }

    def _empty(self, *shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device=self.device)


def _rows(x):
    """``x`` (batch, time, channels), copied only if its channels lie apart or its frames far apart."""
    beside = x.stride(-1) == 1 or x.shape[-1] == 1
    return x if beside and x.stride(1) * x.shape[1] < MAX_OFFSET else x.contiguous()


def _alike(pair):
    """Two tensors with the same strides (the same one twice if there is only one)."""
    pair = [_rows(x) for x in pair]
    if len(pair) == 2 and pair[0].stride() != pair[1].stride():
        pair = [x.contiguous() for x in pair]
    return pair[0], pair[-1]


def _stacked(tensors):
    """Parameters of the directions as one contiguous float32 tensor, ``None`` if there are none."""
    if tensors[0] is None:
        return None
    if len(tensors) == 1:
        return _floats(tensors[0])
    return torch.stack([t.float() for t in tensors])


def _floats(x):
    """``x`` as contiguous float32, copied only if it is not."""
    return None if x is None else x.to(torch.float32).contiguous()


def _strides(*tensors):
    """Strides over batch and time, zeros for ``None``."""
    return [n for t in tensors for n in ((0, 0) if t is None else t.stride()[:2])]


def _power_of_two(n):
    return 1 << (n - 1).bit_length()
