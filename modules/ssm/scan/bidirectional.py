"""Both directions of a bidirectional block's scan as one operation.

A block that reads an utterance forwards and backwards adds the two results up. Done together, nothing is
flipped or copied and the sum costs no pass of its own; the reference is two calls of
:func:`modules.ssm.selective_scan`.
"""

from modules.ssm.checks import check_pair, check_switch, frame_counts
from modules.ssm.scan.composed import composed
from modules.ssm.scan.cpu import bidirectional_scan_cpu
from modules.ssm.scan.dispatch import BACKENDS, check_scan
from modules.ssm.scan.triton_backend import bidirectional_scan_triton

_PAIRS = ("u", "delta", "A", "B", "C", "D", "delta_bias")
# backends with a function of their own for both directions; the others are called twice
BIDIRECTIONAL = {"cpu": bidirectional_scan_cpu, "triton": bidirectional_scan_triton}


def bidirectional_scan(
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
    return_last_state=False,
    backend="auto",
):
    """The sum of a scan forwards and a scan backwards ("Vision Mamba", arXiv 2401.09417, section 3.3).

    Arguments
    ---------
    u, delta, A, B, C, D, delta_bias : pair of torch.Tensor
        (forward, backward), each as in :func:`modules.ssm.selective_scan`; D and delta_bias may be ``None``.
    z : torch.Tensor, optional
        (batch, time, channels), the gate of both directions.
    delta_softplus, lengths, backend
        As in :func:`modules.ssm.selective_scan`.
    initial_state : torch.Tensor, optional
        (batch, channels, states), of the forward direction; the backward one starts from zero.
    return_last_state : bool
        Also return the forward direction's last state.

    Returns
    -------
    torch.Tensor or (torch.Tensor, torch.Tensor)
        (batch, time, channels), and the state (batch, channels, states).

    Raises
    ------
    ValueError
        As :func:`modules.ssm.selective_scan`.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import bidirectional_scan, selective_scan
    >>> u, A, B = torch.rand(1, 5, 2), -torch.rand(2, 3), torch.randn(1, 5, 3)
    >>> both = bidirectional_scan((u, u), (u, u), (A, A), (B, B), (B, B))
    >>> backward = selective_scan(u, u, A, B, B, reverse=True)
    >>> torch.allclose(both, selective_scan(u, u, A, B, B) + backward, atol=1e-6)
    True
    """
    none = (None, None)
    D, delta_bias = none if D is None else D, none if delta_bias is None else delta_bias
    pairs = (u, delta, A, B, C, D, delta_bias)
    for name, pair in zip(_PAIRS, pairs, strict=True):
        check_pair(name, pair)
    for direction, (u_, delta_, A_, B_, C_, D_, bias) in enumerate(zip(*pairs, strict=True)):
        check_scan(u_, delta_, A_, B_, C_, D_, z, bias, None if direction else initial_state)
    if u[0].shape != u[1].shape or A[0].shape != A[1].shape:
        raise ValueError(
            f"both directions must have one shape; got u {tuple(u[0].shape)} and {tuple(u[1].shape)}, "
            f"A {tuple(A[0].shape)} and {tuple(A[1].shape)}"
        )
    check_switch("delta_softplus", delta_softplus)
    lengths = frame_counts(lengths, u[0])
    name = BACKENDS.choose(backend, u=u[0], A=A[0], lengths=lengths, initial_state=initial_state)
    scan = BIDIRECTIONAL.get(name) or composed(BACKENDS[name])
    out, last_state = scan(
        u,
        delta,
        A,
        B,
        C,
        D,
        z,
        delta_bias,
        delta_softplus,
        lengths=lengths,
        initial_state=initial_state,
    )
    return (out, last_state) if return_last_state else out
