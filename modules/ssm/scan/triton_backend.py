"""The ``triton`` backend: the selective scan on GPUs, one direction or both in one launch.

The kernels are in ``modules/ssm/triton``. Here tensors are brought into the form that they read, the
plan is chosen, and the operator is registered, so that ``torch.compile`` and ``torch.export`` see one
node. Triton itself is imported by the first call.
"""

import contextlib
from functools import partial

import torch
from torch.nn import functional as F

from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.operators import Operator, any_float64, empty_gradients
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.scan.composed import composed, direction
from modules.ssm.triton.plan import KEEP, MAX_OFFSET, MAX_STATES, ScanPlan
from modules.ssm.triton.plan import plan as choose_plan
from modules.ssm.triton.refusal import device_refusal

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def triton_refusal(u, A, lengths=None, initial_state=None):
    """Why these tensors cannot go to the Triton kernels, or ``None``."""
    reason = device_refusal(u.device)
    if reason is not None:
        return reason
    if u.dtype not in _DTYPES or A.dtype == torch.float64:
        return "the Triton kernels compute in float32 only"
    if initial_state is not None and initial_state.dtype == torch.float64:
        return "the Triton kernels keep the state in float32 only"
    if u.shape[1] * u.shape[2] >= MAX_OFFSET:
        return f"the Triton kernels take utterances of less than {MAX_OFFSET} numbers"
    return None


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
    if any_float64(tensors):
        options = {"lengths": lengths, "reverse": reverse, "initial_state": initial_state}
        return selective_scan_chunked(*tensors[:8], delta_softplus, **options)
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
    # tensors of unlike kinds are no case for one launch
    alike = all((a is None) == (b is None) for a, b in zip(first, second, strict=True))
    alike = alike and all(first[i].dtype == second[i].dtype for i in (0, 1, 3, 4))
    alike = alike and first[2].shape == second[2].shape
    if not alike or any_float64((*first, *second, z, initial_state)):
        both = composed(partial(selective_scan_triton, plan=plan))
        pairs = (u, delta, A, B, C, D, z, delta_bias)
        return both(*pairs, delta_softplus, lengths=lengths, initial_state=initial_state)
    run = _in_groups if first[2].shape[1] > MAX_STATES else _run
    return run(first, second, z, initial_state, lengths, delta_softplus, False, plan)


def _run(first, second, z, initial_state, lengths, delta_softplus, reverse, plan):
    """The operator, with its gradient where one is wanted."""
    tensors = (*first, *(second or [None] * 7), z, initial_state)
    numbers = [] if plan is None else plan.numbers()
    out, last_state, _ = SCAN(tensors, lengths, delta_softplus, reverse, numbers)
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


def _forward(*arguments):
    """Output, last state, and with ``save`` the states that the backward pass starts from."""
    *inputs, plan, save = arguments
    u, A, initial_state = inputs[0], inputs[2], inputs[15]
    out, last, saved = _results(*arguments)
    if not u.numel() or not A.shape[1]:
        if initial_state is None:
            last.zero_()
        else:
            last.copy_(initial_state)
        return out.zero_(), last, saved
    scan = _scan(*inputs)
    with _on(u):
        scan.forward(_plan(plan, scan), out, last, saved if save else None)
    return out, last, saved


def _results(*arguments):
    """Empty tensors for what the operator returns."""
    u, A, A_back, save = arguments[0], arguments[2], arguments[9], arguments[-1]
    batch, time, channels = u.shape
    states = A.shape[1]
    rows = batch if A_back is None else 2 * batch
    kept = rows * ((time + KEEP - 1) // KEEP) * states * channels if save else 0
    return (
        u.new_empty(u.shape),
        u.new_empty(batch, channels, states, dtype=torch.float32),
        u.new_empty(kept, dtype=torch.float32),
    )


def _backward(grad_out, grad_last, saved, *arguments):
    """Gradients of the tensors from u to initial_state; empty for those not given."""
    *inputs, plan = arguments
    u, A, initial_state = inputs[0], inputs[2], inputs[15]
    grads = empty_gradients(inputs[:16])
    if not u.numel() or not A.shape[1]:
        for g in grads:
            g.zero_()
        if initial_state is not None and grad_last is not None:
            grads[-1].copy_(grad_last)
        return grads
    scan = _scan(*inputs)
    with _on(u):
        computed = scan.backward(_plan(plan, scan), grad_out, grad_last, saved)
        for g, c in zip(grads, computed, strict=True):
            if c is not None:
                g.copy_(c)
    return grads


SCAN = Operator(
    "selective_scan_triton",
    f"{direction()}, {direction('_back', 'Tensor?')}, Tensor? z, Tensor? initial_state",
    "bool delta_softplus, bool reverse, SymInt[] plan",
    outputs=2,
    kept=1,
    forward=_forward,
    backward=_backward,
    results=_results,
)


def _scan(*inputs):
    """The launcher of the kernels for one call."""
    from modules.ssm.triton.scan_launch import Scan

    return Scan(inputs[:7], inputs[7:14], *inputs[14:])


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
