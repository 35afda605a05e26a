"""The ``triton`` backend: the selective scan on GPUs, one direction or both in one launch.

The kernels are in ``modules/ssm/triton``. Here tensors are brought into the form that they read, the
plan is chosen, and the operator is registered, so that ``torch.compile`` and ``torch.export`` see one
node. Triton itself is imported by the first call.
"""

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.triton.plan import KEEP, MAX_OFFSET, MAX_STATES, ScanPlan
from modules.ssm.triton.plan import plan as choose_plan

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def triton_refusal(u, A, lengths=None, initial_state=None):
    """Why these tensors cannot go to the Triton kernels, or ``None``.

    They run on CUDA devices, and on CPU tensors in Triton's interpreter, which the environment variable
    ``TRITON_INTERPRET=1`` switches on (slow: for tests).
    """
    if not _installed():
        return "Triton is not installed"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if u.device.type != "cuda" and not (interpreted and u.device.type == "cpu"):
        return f"Triton kernels run on CUDA only, and the tensors are on {u.device.type}"
    if u.dtype not in _DTYPES or A.dtype == torch.float64:
        return "the Triton kernels compute in float32 only"
    if initial_state is not None and initial_state.dtype == torch.float64:
        return "the Triton kernels keep the state in float32 only"
    if u.shape[1] * u.shape[2] >= MAX_OFFSET:
        return f"the Triton kernels take utterances of less than {MAX_OFFSET} numbers"
    return None


@cache
def _installed():
    return importlib.util.find_spec("triton") is not None


def selective_scan_triton(
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
    plan=None,
):
    """Selective scan by the Triton kernels, called like :func:`selective_scan_naive`.

    Tensors whose channels lie side by side are read where they are, whatever their strides over batch
    and time. A float64 tensor among the others sends the whole computation, then in float64, to the
    ``torch`` backend.

    Arguments
    ---------
    plan : modules.ssm.triton.plan.ScanPlan, optional
        How to launch the kernels; chosen by :func:`modules.ssm.triton.plan.plan` if not given.

    Returns
    -------
    out : torch.Tensor
        (batch, time, channels), in the dtype of ``u``.
    last_state : torch.Tensor
        (batch, channels, states), float32 (float64 if any input is).
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
    first = (u, delta, A, B, C, D, delta_bias)
    if A.shape[1] > MAX_STATES:
        return _in_groups(first, None, z, initial_state, lengths, delta_softplus, reverse, plan)
    return _run(first, None, z, initial_state, lengths, delta_softplus, reverse, plan)


def bidirectional_scan_triton(
    u,
    delta,
    A,
    B,
    C,
    D,
    z,
    delta_bias,
    delta_softplus,
    *,
    lengths=None,
    initial_state=None,
    plan=None,
):
    """Scans of both directions in one launch, added.

    Arguments
    ---------
    u, delta, A, B, C, D, delta_bias : tuple
        Pairs (forward, backward) of what :func:`selective_scan_triton` takes; ``D`` and ``delta_bias``
        may also be ``None``.
    z : torch.Tensor, optional
        (batch, time, channels), the gate of both.
    initial_state : torch.Tensor, optional
        (batch, channels, states), of the forward direction; the backward one starts from zero.

    Returns
    -------
    out : torch.Tensor
        (batch, time, channels), in the dtype of ``u``.
    last_state : torch.Tensor
        (batch, channels, states), of the forward direction.
    """
    nothing = (None, None)
    first, second = zip(u, delta, A, B, C, D or nothing, delta_bias or nothing, strict=True)
    given = [t for t in (*first, *second, z, initial_state) if t is not None]
    # tensors of unlike kinds are no case for one launch
    alike = all((a is None) == (b is None) for a, b in zip(first, second, strict=True))
    alike = alike and all(first[i].dtype == second[i].dtype for i in (0, 1, 3, 4))
    alike = alike and first[2].shape == second[2].shape
    if not alike or any(t.dtype == torch.float64 for t in given):
        options = {"lengths": lengths, "plan": plan}
        u, delta, A, B, C, D, bias = first
        out, last = selective_scan_triton(
            u, delta, A, B, C, D, z, bias, delta_softplus, initial_state=initial_state, **options
        )
        u, delta, A, B, C, D, bias = second
        other, _ = selective_scan_triton(
            u, delta, A, B, C, D, z, bias, delta_softplus, reverse=True, **options
        )
        return out + other, last
    run = _in_groups if first[2].shape[1] > MAX_STATES else _run
    return run(first, second, z, initial_state, lengths, delta_softplus, False, plan)


def _run(first, second, z, initial_state, lengths, delta_softplus, reverse, plan):
    """The operator, with its gradient where one is wanted."""
    tensors = (*first, *(second or [None] * 7), z, initial_state)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    # the operator's own autograd layer costs more than an autograd.Function
    run = _Scan.apply if save and not torch.compiler.is_compiling() else scan_op
    numbers = [] if plan is None else plan.numbers()
    out, last_state, _ = run(*tensors, lengths, delta_softplus, reverse, save, numbers)
    return out, last_state


def _in_groups(first, second, z, initial_state, lengths, delta_softplus, reverse, plan):
    """More states than a program holds: scans of groups of states, added in float32 before the gate."""
    u = first[0]
    valid = valid_frames(lengths, u.shape[1], u.device)
    total, states = 0.0, []

    def group(side, n):
        if side is None:
            return None
        u, delta, A, B, C, _, bias = side
        part = slice(n, n + MAX_STATES)
        return u.float(), delta, A[:, part], B[..., part], C[..., part], None, bias

    for n in range(0, first[2].shape[1], MAX_STATES):
        initial = None if initial_state is None else initial_state[..., n : n + MAX_STATES]
        out, state = _run(
            group(first, n),
            group(second, n),
            None,
            initial,
            lengths,
            delta_softplus,
            reverse,
            plan,
        )
        total = total + out
        states.append(state)
    for side in (first, second):
        if side is not None and side[5] is not None:
            total = total + side[5].float() * keep_valid(side[0].float(), valid)
    if z is not None:
        total = total * F.silu(keep_valid(z.float(), valid))
    return total.to(u.dtype), torch.cat(states, -1)


@torch.library.custom_op("mamba_speech::selective_scan_triton", mutates_args=())
def scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    u_back: Tensor | None,
    delta_back: Tensor | None,
    A_back: Tensor | None,
    B_back: Tensor | None,
    C_back: Tensor | None,
    D_back: Tensor | None,
    delta_bias_back: Tensor | None,
    z: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    save: bool,
    plan: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state, and with ``save`` the states that the backward pass starts from."""
    first = (u, delta, A, B, C, D, delta_bias)
    second = (u_back, delta_back, A_back, B_back, C_back, D_back, delta_bias_back)
    out, last, saved = _results(u, A, A_back, save)
    if not u.numel() or not A.shape[1]:
        if initial_state is None:
            last.zero_()
        else:
            last.copy_(initial_state)
        return out.zero_(), last, saved
    from modules.ssm.triton.scan_launch import Scan

    scan = Scan(first, second, z, initial_state, lengths, delta_softplus, reverse)
    with _on(u):
        scan.forward(_plan(plan, scan), out, last, saved if save else None)
    return out, last, saved


@scan_op.register_fake
def _(*inputs):
    return _results(inputs[0], inputs[2], inputs[9], inputs[19])


def _results(u, A, A_back, save):
    """Empty tensors for what the operator returns."""
    batch, time, channels = u.shape
    states = A.shape[1]
    rows = batch if A_back is None else 2 * batch
    kept = rows * ((time + KEEP - 1) // KEEP) * states * channels if save else 0
    return (
        u.new_empty(u.shape),
        u.new_empty(batch, channels, states, dtype=torch.float32),
        u.new_empty(kept, dtype=torch.float32),
    )


@torch.library.custom_op("mamba_speech::selective_scan_triton_backward", mutates_args=())
def scan_backward_op(
    grad_out: Tensor,
    grad_last: Tensor | None,
    saved: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    u_back: Tensor | None,
    delta_back: Tensor | None,
    A_back: Tensor | None,
    B_back: Tensor | None,
    C_back: Tensor | None,
    D_back: Tensor | None,
    delta_bias_back: Tensor | None,
    z: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    plan: Sequence[int],
) -> list[Tensor]:
    """Gradients of the tensors from u to initial_state; empty for those not given."""
    first = (u, delta, A, B, C, D, delta_bias)
    second = (u_back, delta_back, A_back, B_back, C_back, D_back, delta_bias_back)
    tensors = (*first, *second, z, initial_state)
    grads = _gradients(tensors)
    if not u.numel() or not A.shape[1]:
        for g in grads:
            g.zero_()
        if initial_state is not None and grad_last is not None:
            grads[-1].copy_(grad_last)
        return grads
    from modules.ssm.triton.scan_launch import Scan

    scan = Scan(first, second, z, initial_state, lengths, delta_softplus, reverse)
    with _on(u):
        computed = scan.backward(_plan(plan, scan), grad_out, grad_last, saved)
        for g, c in zip(grads, computed, strict=True):
            if c is not None:
                g.copy_(c)
    return grads


@scan_backward_op.register_fake
def _(grad_out, grad_last, saved, *inputs):
    return _gradients(inputs[:16])


def _gradients(tensors):
    """Empty contiguous tensors for the gradients."""
    u = tensors[0]
    return [u.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors]


def _plan(numbers, scan):
    if numbers:
        return ScanPlan.of(numbers)
    multiprocessors = 132
    if scan.device.type == "cuda":
        multiprocessors = torch.cuda.get_device_properties(scan.device).multi_processor_count
    return choose_plan(*scan.sizes, scan.directions, multiprocessors)


def _on(u):
    """The device of ``u`` as the current one, for the launch."""
    return torch.cuda.device(u.device) if u.device.type == "cuda" else contextlib.nullcontext()


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
    *tensors, ctx.delta_softplus, ctx.reverse, _, ctx.plan = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[2])


def _gradient(ctx, grad_out, grad_last, _):
    *tensors, lengths, saved = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    grads = scan_backward_op(
        grad_out, grad_last, saved, *tensors, lengths, ctx.delta_softplus, ctx.reverse, ctx.plan
    )
    wanted = (g if need else None for g, need in zip(grads, ctx.needs_input_grad, strict=False))
    return *wanted, None, None, None, None, None


scan_op.register_autograd(_gradient, setup_context=_keep)
