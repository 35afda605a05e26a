"""The ``cpu`` backend: the compiled selective scan as PyTorch operators with their gradients.

The arithmetic is in ``modules/ssm/cpu/scan_forward.c`` and ``scan_backward.c``: vectors of
channels, the state in float32, one state in 16 frames kept for the backward pass. Here one direction,
and two at once, are registered as one operator each, so that ``torch.compile`` and ``torch.export``
see one node. A call that nothing watches goes to the kernel directly.
"""

import torch
from torch import Tensor

from modules.ssm.cpu import refusal
from modules.ssm.cpu.scan_calls import Direction, backward, forward, gradients, results
from modules.ssm.cpu.tensors import in_forward_mode, needs_grad, takes, unwatched
from modules.ssm.scan.chunked import selective_scan_chunked


def cpu_refusal(u, A, lengths=None, initial_state=None):
    """Why these tensors cannot go to the compiled CPU kernels, or ``None``."""
    if u.device.type != "cpu":
        return f"the compiled kernels run on the CPU, and the tensors are on {u.device.type}"
    if not takes(u) or A.dtype == torch.float64:
        return "the compiled kernels compute in float32 only"
    if initial_state is not None and initial_state.dtype == torch.float64:
        return "the compiled kernels keep the state in float32 only"
    return refusal()


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
    to the ``torch`` backend. Where utterances and channels are too few for the threads, time is cut into
    segments: results are the same bits from run to run at one number of threads, and at all numbers that
    do not cut.

    Raises
    ------
    RuntimeError
        If the kernels cannot be built here (:func:`cpu_refusal` says so beforehand).
    """
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    if _any_float64(tensors):
        options = {"lengths": lengths, "reverse": reverse, "initial_state": initial_state}
        return selective_scan_chunked(*tensors[:8], delta_softplus, **options)
    save = needs_grad(*tensors)
    arguments = (*tensors, lengths, delta_softplus, reverse, save)
    out, last_state, _ = _runner(_Scan, scan_op, _forward, tensors, save)(*arguments)
    return out, last_state


def bidirectional_scan_cpu(
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
    initial_state=None,
):
    """The sum of a forward and a backward selective scan, in one call of the kernels.

    Both directions are added up before the gate, which is computed once, and a half-precision sum is
    rounded once.

    Arguments
    ---------
    u, delta, A, B, C, D, delta_bias : tuple
        Pairs (forward, backward) of what :func:`selective_scan_cpu` takes; ``D`` and ``delta_bias`` may be
        ``None``, or hold it.
    z : torch.Tensor, optional
        (batch, time, channels), the gate of both.
    delta_softplus : bool
    lengths : torch.Tensor, optional
        (batch,) integer frame counts.
    initial_state : torch.Tensor, optional
        (batch, channels, states), the forward direction's; the backward one starts from zeros.

    Returns
    -------
    (torch.Tensor, torch.Tensor)
        (batch, time, channels), and the forward direction's last state (batch, channels, states).

    Raises
    ------
    RuntimeError
        If the kernels cannot be built here (:func:`cpu_refusal` says so beforehand).

    Example
    -------
    >>> import torch
    >>> u, A, B = torch.randn(1, 5, 4), -torch.rand(4, 3), torch.randn(1, 5, 3)
    >>> both, _ = bidirectional_scan_cpu((u, u), (u.abs(),) * 2, (A, A), (B, B), (B, B))
    >>> alone = [selective_scan_cpu(u, u.abs(), A, B, B, reverse=r)[0] for r in (False, True)]
    >>> torch.allclose(both, sum(alone), atol=1e-5)
    True
    """
    pairs = [(None, None) if t is None else t for t in (u, delta, A, B, C, D, delta_bias)]
    one, other = zip(*pairs, strict=True)
    tensors = (*one, *other, z, initial_state)
    if _any_float64(tensors):
        options = {"lengths": lengths, "initial_state": initial_state}
        ahead, last = selective_scan_chunked(
            *one[:6], z, one[6], delta_softplus, reverse=False, **options
        )
        back, _ = selective_scan_chunked(
            *other[:6], z, other[6], delta_softplus, lengths=lengths, reverse=True
        )
        return ahead + back, last
    save = needs_grad(*tensors)
    arguments = (*tensors, lengths, delta_softplus, save)
    run = _runner(_BidirectionalScan, bidirectional_scan_op, _bidirectional, tensors, save)
    return run(*arguments)[:2]


def _any_float64(tensors):
    return any(t is not None and t.dtype == torch.float64 for t in tensors)


def _runner(function, operator, kernel, tensors, save):
    """Who runs a call. The operator's own autograd layer costs 80 us, an autograd.Function 10, the operator
    without a gradient 30."""
    if not torch.compiler.is_compiling() and (save or in_forward_mode()):
        return function.apply
    return kernel if unwatched(*tensors) else operator


def _directions(u, delta, A, B, C, D, bias, other, initial_state):
    return [
        Direction(u, delta, A, B, C, D, bias, initial_state, False),
        Direction(*other, None, True),
    ]


def _forward(u, delta, A, B, C, D, z, bias, initial_state, lengths, delta_softplus, reverse, save):
    one = Direction(u, delta, A, B, C, D, bias, initial_state, reverse)
    return forward([one], z, lengths, delta_softplus, save)


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
    return _forward(
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
        save,
    )


@scan_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, lengths, delta_softplus, reverse, save):
    return results(u, A, 1, save)


def _backward(
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
    bias,
    initial_state,
    lengths,
    delta_softplus,
    reverse,
):
    one = Direction(u, delta, A, B, C, D, bias, initial_state, reverse)
    (grads,), grad_z = backward([one], z, lengths, delta_softplus, grad_out, grad_last, [starts])
    return [*grads[:6], grad_z, *grads[6:]]


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
    return _backward(grad_out, grad_last, starts, *tensors, lengths, delta_softplus, reverse)


@scan_backward_op.register_fake
def _(grad_out, grad_last, starts, u, *tensors):
    return gradients((u, *tensors[:8]), u)


def _bidirectional(*arguments):
    *tensors, z, initial_state, lengths, delta_softplus, save = arguments
    directions = _directions(*tensors[:7], tensors[7:], initial_state)
    return forward(directions, z, lengths, delta_softplus, save)


@torch.library.custom_op("mamba_speech::bidirectional_scan", mutates_args=())
def bidirectional_scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    u_b: Tensor,
    delta_b: Tensor,
    A_b: Tensor,
    B_b: Tensor,
    C_b: Tensor,
    D_b: Tensor | None,
    delta_bias_b: Tensor | None,
    z: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, the forward direction's last state, and with ``save`` the kept states of both."""
    one = (u, delta, A, B, C, D, delta_bias)
    other = (u_b, delta_b, A_b, B_b, C_b, D_b, delta_bias_b)
    return _bidirectional(*one, *other, z, initial_state, lengths, delta_softplus, save)


@bidirectional_scan_op.register_fake
def _(u, delta, A, *others):
    return results(u, A, 2, others[-1])


def _bidirectional_backward(grad_out, grad_last, starts, starts_b, *arguments):
    *tensors, z, initial_state, lengths, delta_softplus = arguments
    directions = _directions(*tensors[:7], tensors[7:], initial_state)
    given = (grad_out, grad_last, (starts, starts_b))
    (grads, others), grad_z = backward(directions, z, lengths, delta_softplus, *given)
    return [*grads[:7], *others[:7], grad_z, grads[7]]


@torch.library.custom_op("mamba_speech::bidirectional_scan_backward", mutates_args=())
def bidirectional_scan_backward_op(
    grad_out: Tensor,
    grad_last: Tensor | None,
    starts: Tensor,
    starts_b: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    u_b: Tensor,
    delta_b: Tensor,
    A_b: Tensor,
    B_b: Tensor,
    C_b: Tensor,
    D_b: Tensor | None,
    delta_bias_b: Tensor | None,
    z: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
) -> list[Tensor]:
    """Gradients of the tensors from u to initial_state; empty for those not given."""
    one = (u, delta, A, B, C, D, delta_bias)
    other = (u_b, delta_b, A_b, B_b, C_b, D_b, delta_bias_b)
    rest = (z, initial_state, lengths, delta_softplus)
    return _bidirectional_backward(grad_out, grad_last, starts, starts_b, *one, *other, *rest)


@bidirectional_scan_backward_op.register_fake
def _(grad_out, grad_last, starts, starts_b, u, *tensors):
    return gradients((u, *tensors[:15]), u)


def _keep(ctx, inputs, output):
    """Remember a call: tensors, lengths and kept states; then the options but the last, ``save``."""
    tensors = [t for t in inputs if t is None or isinstance(t, Tensor)]
    ctx.options = inputs[len(tensors) : -1]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output[2:])


def _gradient(ctx, grads, directions, kernel, operator):
    # read once: activation checkpointing computes them again for the first look only
    saved = ctx.saved_tensors
    *tensors, lengths = saved[:-directions]
    starts = saved[-directions:]
    grad_out, grad_last = grads[:2]
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    # with create_graph: the operator refuses a second derivative, the kernel would drop it
    direct = not torch.is_grad_enabled() and unwatched(grad_out, grad_last, *tensors)
    run = kernel if direct else operator
    made = run(grad_out, grad_last, *starts, *tensors, lengths, *ctx.options)
    wanted = (g if need else None for g, need in zip(made, ctx.needs_input_grad, strict=False))
    return *wanted, None, *[None] * len(ctx.options), None


def _scan_gradient(ctx, *grads):
    return _gradient(ctx, grads, 1, _backward, scan_backward_op)


def _bidirectional_gradient(ctx, *grads):
    return _gradient(ctx, grads, 2, _bidirectional_backward, bidirectional_scan_backward_op)


scan_op.register_autograd(_scan_gradient, setup_context=_keep)
bidirectional_scan_op.register_autograd(_bidirectional_gradient, setup_context=_keep)


class _Scan(torch.autograd.Function):
    """One direction's gradient, for calls that do not go through the compiler."""

    @staticmethod
    def forward(*args):
        return (_forward if unwatched(*args[:9]) else scan_op)(*args)

    setup_context = staticmethod(_keep)
    backward = staticmethod(_scan_gradient)


class _BidirectionalScan(torch.autograd.Function):
    """Likewise for both directions."""

    @staticmethod
    def forward(*args):
        return (_bidirectional if unwatched(*args[:16]) else bidirectional_scan_op)(*args)

    setup_context = staticmethod(_keep)
    backward = staticmethod(_bidirectional_gradient)
