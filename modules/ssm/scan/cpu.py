"""The ``cpu`` backend: the compiled selective scan as PyTorch operators with their gradients.

The arithmetic is in ``modules/ssm/cpu/scan_forward.c`` and ``scan_backward.c``: vectors of
channels, the state in float32, one state in 16 frames kept for the backward pass. Here one direction,
and two at once, are registered as one operator each, so that ``torch.compile`` and ``torch.export``
see one node. A call that nothing watches goes to the kernel directly.
"""

import torch

from modules.ssm.cpu import refusal
from modules.ssm.cpu.scan_calls import ScanDirection, backward, forward, results
from modules.ssm.cpu.tensors import takes
from modules.ssm.operators import Operator, any_float64
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.scan.composed import composed, direction


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
    if any_float64(tensors):
        options = {"lengths": lengths, "reverse": reverse, "initial_state": initial_state}
        return selective_scan_chunked(*tensors[:8], delta_softplus, **options)
    out, last_state, _ = SCAN(tensors, lengths, delta_softplus, reverse)
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
    if any_float64(tensors):
        options = {"lengths": lengths, "initial_state": initial_state}
        *first, bias = pairs
        return composed(selective_scan_chunked)(*first, z, bias, delta_softplus, **options)
    return BIDIRECTIONAL_SCAN(tensors, lengths, delta_softplus)[:2]


def _forward(u, delta, A, B, C, D, z, bias, initial_state, lengths, delta_softplus, reverse, save):
    one = ScanDirection(u, delta, A, B, C, D, bias, initial_state, reverse)
    return forward([one], z, lengths, delta_softplus, save)


def _backward(grad_out, grad_last, starts, *arguments):
    u, delta, A, B, C, D, z, bias, initial_state, lengths, delta_softplus, reverse = arguments
    one = ScanDirection(u, delta, A, B, C, D, bias, initial_state, reverse)
    (grads,), grad_z = backward([one], z, lengths, delta_softplus, grad_out, grad_last, [starts])
    return [*grads[:6], grad_z, *grads[6:]]


SCAN = Operator(
    "selective_scan",
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state",
    "bool delta_softplus, bool reverse",
    outputs=2,
    kept=1,
    forward=_forward,
    backward=_backward,
    results=lambda u, delta, A, *others: results(u, A, 1, others[-1]),
    direct=True,
)


def _directions(tensors, initial_state):
    return [
        ScanDirection(*tensors[:7], initial_state, False),
        ScanDirection(*tensors[7:], None, True),
    ]


def _bidirectional(*arguments):
    *tensors, z, initial_state, lengths, delta_softplus, save = arguments
    return forward(_directions(tensors, initial_state), z, lengths, delta_softplus, save)


def _bidirectional_backward(grad_out, grad_last, starts, starts_b, *arguments):
    *tensors, z, initial_state, lengths, delta_softplus = arguments
    directions = _directions(tensors, initial_state)
    given = (grad_out, grad_last, (starts, starts_b))
    (grads, others), grad_z = backward(directions, z, lengths, delta_softplus, *given)
    return [*grads[:7], *others[:7], grad_z, grads[7]]


BIDIRECTIONAL_SCAN = Operator(
    "bidirectional_scan",
    f"{direction()}, {direction('_b')}, Tensor? z, Tensor? initial_state",
    "bool delta_softplus",
    outputs=2,
    kept=2,
    forward=_bidirectional,
    backward=_bidirectional_backward,
    results=lambda u, delta, A, *others: results(u, A, 2, others[-1]),
    direct=True,
)
