"""The ``cpu`` backend: the compiled selective scan as one PyTorch operator with its gradient.

The arithmetic is in ``modules/ssm/cpu/scan_forward.c`` and ``scan_backward.c``: vectors of
channels, the state in float32, one state in 16 frames kept for the backward pass. Here tensors
become addresses, and the operator is registered, so that ``torch.compile`` and ``torch.export``
see one node.
"""

import torch
from torch import Tensor

from modules.ssm.cpu import refusal
from modules.ssm.cpu.tensors import (
    address,
    call,
    floats,
    frames,
    has_float16,
    needs_grad,
    rows,
    takes,
    view,
    without_float16,
)
from modules.ssm.scan.chunked import selective_scan_chunked

# frames a chunk, FRAMES in scan.h
_FRAMES = 16


def cpu_refusal(u, A, lengths=None, initial_state=None):
    """Why these tensors can not go to the compiled CPU kernels, or ``None``."""
    if u.device.type != "cpu":
        return f"the compiled kernels run on the CPU, and the tensors are on {u.device.type}"
    if not takes(u) or A.dtype == torch.float64:
        return "the compiled kernels compute in float32 only"
    if initial_state is not None and initial_state.dtype == torch.float64:
        return "the compiled kernels keep the state in float32 only"
    reason = refusal()
    if reason is None and u.dtype == torch.float16 and not has_float16():
        return "the compiled kernels know no float16 on this processor"
    return reason


def selective_scan_cpu(
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
):
    """Selective scan by the compiled kernels, called like :func:`selective_scan_naive`.

    Tensors whose channels lie side by side are read where they are, whatever their strides over
    batch and time. A float64 tensor among the others sends the whole computation, then in float64,
    to the ``torch`` backend.

    Raises
    ------
    RuntimeError
        If the kernels can not be built here (:func:`cpu_refusal` says so beforehand).
    """
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    if any(t is not None and t.dtype == torch.float64 for t in tensors):
        return selective_scan_chunked(
            *tensors[:8],
            delta_softplus,
            lengths=lengths,
            reverse=reverse,
            initial_state=initial_state,
        )
    tensors = without_float16(*tensors)
    save = needs_grad(*tensors)
    # the operator's own autograd layer costs 80 us a call, an autograd.Function 10
    run = _Scan.apply if save and not torch.compiler.is_compiling() else scan_op
    out, last_state, _ = run(*tensors, lengths, delta_softplus, reverse, save)
    return out, last_state


@torch.library.custom_op("mamba_speech::selective_scan", mutates_args=())
def scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state, and with ``save`` the states that the backward pass starts from."""
    out, last_state, starts = _results(u, A, save)
    inputs = _Inputs(u, delta, A, B, C, D, z, delta_bias, initial_state, lengths)
    call(
        "scan_forward",
        *inputs.numbers(out, delta_softplus, reverse),
        address(last_state),
        address(starts) if save else 0,
    )
    return out, last_state, starts


@scan_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, lengths, delta_softplus, reverse, save):
    return _results(u, A, save)


def _results(u, A, save):
    """Empty tensors for what the operator returns."""
    batch, time, channels = u.shape
    states = A.shape[1]
    kept = 0
    if save:
        # one before every chunk but the first; room for whole vectors of up to 16 channels
        kept = batch * (time // _FRAMES) * ((channels + 15) // 16 * 16) * states
    return (
        u.new_empty(u.shape),
        u.new_empty(batch, channels, states, dtype=torch.float32),
        u.new_empty(kept, dtype=torch.float32),
    )


class _Inputs:
    """The inputs as the kernels read them, kept alive while their addresses are in use."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, initial_state, lengths):
        self.u, self.delta, self.z, self.B, self.C = rows(u), rows(delta), rows(z), rows(B), rows(C)
        self.A, self.D, self.bias = floats(A), floats(D), floats(delta_bias)
        self.initial, self.lengths = floats(initial_state), frames(lengths)

    def numbers(self, out, delta_softplus, reverse):
        """The members of ``scan_args`` up to ``initial``."""
        return (
            *self.u.shape,
            self.A.shape[1],
            delta_softplus,
            reverse,
            torch.get_num_threads(),
            address(self.lengths),
            *view(self.u),
            *view(self.delta),
            *view(self.z),
            *view(self.B),
            *view(self.C),
            *view(out),
            address(self.A),
            address(self.D),
            address(self.bias),
            address(self.initial),
        )


@torch.library.custom_op("mamba_speech::selective_scan_backward", mutates_args=())
def scan_backward_op(
    grad_out: Tensor,
    grad_last: Tensor | None,
    starts: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of the tensors from u to initial_state; empty for those not given."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    inputs = _Inputs(*tensors, lengths)
    grad_out, grad_last = rows(grad_out), floats(grad_last)
    grads = _gradients(tensors)
    # A, D, delta_bias and initial_state get float32 gradients first
    gu, gdelta, gA, gB, gC, gD, gz, gbias, ginitial = (
        None if t is None else g.float() if i in (2, 5, 7, 8) else g
        for i, (t, g) in enumerate(zip(tensors, grads, strict=True))
    )
    batch, time, channels = u.shape
    states = A.shape[1]
    width = _slot_channels(batch, channels)
    slots = -(-channels // width)
    sums_A = torch.empty(batch, channels, states)
    sums_channel = torch.empty(2, batch, channels)
    # with one slot its sum is the gradient
    sums_B, sums_C = (
        g if slots == 1 and g.dtype == torch.float32 else torch.empty(slots, batch, time, states)
        for g in (gB, gC)
    )
    call(
        "scan_backward",
        *inputs.numbers(None, delta_softplus, reverse),
        0,
        address(starts),
        *(n for t in (grad_out, gu, gdelta, gz, gB, gC) for n in view(t)),
        *map(address, (grad_last, gA, gD, gbias, ginitial, sums_A, sums_channel, sums_B, sums_C)),
        width,
    )
    computed = (gu, gdelta, gA, gB, gC, gD, gz, gbias, ginitial)
    return [g if c is None else c.to(g.dtype) for g, c in zip(grads, computed, strict=True)]


@scan_backward_op.register_fake
def _(
    grad_out,
    grad_last,
    starts,
    u,
    delta,
    A,
    B,
    C,
    D,
    z,
    delta_bias,
    initial_state,
    lengths,
    delta_softplus,
    reverse,
):
    return _gradients((u, delta, A, B, C, D, z, delta_bias, initial_state))


def _gradients(tensors):
    """Empty contiguous tensors for the gradients."""
    u = tensors[0]
    return [u.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors]


def _slot_channels(batch, channels):
    """Channels a task of the backward pass.

    It follows from the shape alone, so that sums over channels are added in one order for any
    number of threads: the width that shares the work out best among four.
    """
    return min((64, 48), key=lambda width: -(-batch * -(-channels // width) // 4) * width)


class _Scan(torch.autograd.Function):
    """The operator's gradient, for calls that do not go through the compiler."""

    @staticmethod
    def forward(*args):
        return scan_op(*args)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx, *grads):
        return _gradient(ctx, *grads)


def _keep(ctx, inputs, output):
    *tensors, ctx.delta_softplus, ctx.reverse, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[2])


def _gradient(ctx, grad_out, grad_last, _):
    *tensors, lengths, starts = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    grads = scan_backward_op(
        grad_out, grad_last, starts, *tensors, lengths, ctx.delta_softplus, ctx.reverse
    )
    wanted = (g if need else None for g, need in zip(grads, ctx.needs_input_grad, strict=False))
    return *wanted, None, None, None, None


scan_op.register_autograd(_gradient, setup_context=_keep)
