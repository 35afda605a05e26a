"""The selective scan's front door: checks the tensors, chooses a backend and calls it."""

import torch

from modules.ssm.backends import Backends, no_refusal
from modules.ssm.checks import (
    check_input,
    check_state_matrix,
    check_switch,
    check_tensor,
    frame_counts,
)
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.scan.cpu import cpu_refusal, selective_scan_cpu
from modules.ssm.scan.graph import selective_scan_graph
from modules.ssm.scan.mamba_ssm_backend import mamba_ssm_refusal, selective_scan_mamba_ssm
from modules.ssm.scan.naive import selective_scan_naive
from modules.ssm.scan.triton_backend import selective_scan_triton, triton_refusal

BACKENDS = Backends(
    "selective scan",
    {
        "cpu": (selective_scan_cpu, cpu_refusal),
        # before mamba_ssm, which no card has compared with the reference: docs/gpu_results.md
        "triton": (selective_scan_triton, triton_refusal),
        "mamba_ssm": (selective_scan_mamba_ssm, mamba_ssm_refusal),
        "torch": (selective_scan_chunked, no_refusal),
        "naive": (selective_scan_naive, no_refusal),
        # for exporters
        "graph": (selective_scan_graph, no_refusal),
    },
)


def available_backends(device="cpu"):
    """Names of the backends that can run float32 tensors on ``device``, fastest first."""
    return BACKENDS.available(
        u=torch.zeros(1, 1, 1, device=device), A=torch.zeros(1, 1, device=device)
    )


def check_environment(device):
    """Check that the backend which ``MAMBA_SPEECH_BACKEND`` names, if any, runs on a device.

    Programs call it before they read a recording, so that none is blamed for the environment.

    Raises
    ------
    RuntimeError
        If there is no backend of that name, or it does not run there.
    """
    one = torch.zeros(1, 1, 1, device=device)
    BACKENDS.check_environment(u=one, A=one[0])


def selective_scan(
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
    return_last_state=False,
    backend="auto",
):
    """Selective state-space scan over time ("Mamba", arXiv 2312.00752, section 3.2).

    With ``dt = softplus(delta + delta_bias)``, for every channel d and state n::

        h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]
        y[t] = sum_n C[t, n] h[t, n] + D u[t]
        out  = y * silu(z)

    The state is kept in float32 whatever the tensors' dtype (float64 in is computed in float64).
    Every floating argument receives a gradient, ``initial_state`` included, and gradients flow through
    the last state.

    Arguments
    ---------
    u, delta : torch.Tensor
        (batch, time, channels): the input and the step before bias and softplus.
    A : torch.Tensor
        (channels, states), real and negative.
    B, C : torch.Tensor
        (batch, time, states), shared by all channels.
    D : torch.Tensor, optional
        (channels,), the skip connection.
    z : torch.Tensor, optional
        (batch, time, channels), the gate.
    delta_bias : torch.Tensor, optional
        (channels,).
    delta_softplus : bool
        Whether softplus is applied to the step.
    lengths : torch.Tensor, optional
        (batch,) integer frame counts. Frames at or past an utterance's length give 0 and take part in
        nothing: they pass no state and no gradient.
    reverse : bool
        Run from each utterance's last valid frame to its first; the output stays in place.
    initial_state : torch.Tensor, optional
        (batch, channels, states), the state before the first frame that is processed.
    return_last_state : bool
        Also return the state after the last frame that is processed (frame 0 with ``reverse``).
    backend : str
        ``auto`` (see :func:`modules.ssm.use_backend`), or a name of :data:`BACKENDS`.

    Returns
    -------
    torch.Tensor or (torch.Tensor, torch.Tensor)
        (batch, time, channels) in the dtype of ``u``, and with ``return_last_state`` the state
        (batch, channels, states) in float32 or float64.

    Raises
    ------
    ValueError
        If an argument has another type, shape or device, lengths are not frame counts, or the backend
        is unknown or cannot take these tensors.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import selective_scan
    >>> u, delta = torch.randn(2, 6, 4), torch.rand(2, 6, 4)
    >>> A, B, C = -torch.rand(4, 3), torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    >>> y, h = selective_scan(u, delta, A, B, C, lengths=torch.tensor([6, 4]), return_last_state=True)
    >>> y.shape, h.shape, y[1, 4:].abs().max().item()
    (torch.Size([2, 6, 4]), torch.Size([2, 4, 3]), 0.0)
    """
    check_scan(u, delta, A, B, C, D, z, delta_bias, initial_state)
    check_switch("delta_softplus", delta_softplus)
    check_switch("reverse", reverse)
    lengths = frame_counts(lengths, u)
    name = BACKENDS.choose(backend, u=u, A=A, lengths=lengths, initial_state=initial_state)
    out, last_state = BACKENDS[name](
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
        reverse=reverse,
        initial_state=initial_state,
    )
    return (out, last_state) if return_last_state else out


def check_scan(u, delta, A, B, C, D, z, delta_bias, initial_state):
    """Raise ``ValueError`` if the tensors are no scan's."""
    check_input("u", u, ("batch", "time", "channels"))
    device = u.device
    batch, time, channels = u.shape
    states = check_state_matrix(A, channels, device)
    check_tensor("delta", delta, (batch, time, channels), device)
    check_tensor("B", B, (batch, time, states), device)
    check_tensor("C", C, (batch, time, states), device)
    if D is not None:
        check_tensor("D", D, (channels,), device)
    if z is not None:
        check_tensor("z", z, (batch, time, channels), device)
    if delta_bias is not None:
        check_tensor("delta_bias", delta_bias, (channels,), device)
    if initial_state is not None:
        check_tensor("initial_state", initial_state, (batch, channels, states), device)
