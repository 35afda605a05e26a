"""The selective scan's front door: checks the tensors, chooses a backend and calls it."""

import torch

from modules.ssm.backends import Backends, no_refusal
from modules.ssm.masking import check_lengths
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.scan.cpu import cpu_refusal, selective_scan_cpu
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
    },
)


def available_backends(device="cpu"):
    """Names of the backends that can run float32 tensors on ``device``, fastest first."""
    return BACKENDS.available(
        u=torch.zeros(1, 1, 1, device=device), A=torch.zeros(1, 1, device=device)
    )


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
        If shapes do not fit, A is complex, lengths are not frame counts, or the backend is unknown or
        cannot take these tensors.

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
    check_lengths(lengths, u.shape[0], u.shape[1])
    if lengths is not None:
        lengths = lengths.to(u.device)
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
    if u.dim() != 3:
        raise ValueError(f"u must be (batch, time, channels); got {tuple(u.shape)}")
    if any(
        t is not None and t.is_complex()
        for t in (u, delta, A, B, C, D, z, delta_bias, initial_state)
    ):
        raise ValueError(
            "complex state-space parameters are not supported: A, B and C must be real"
        )
    batch, time, channels = u.shape
    if A.dim() != 2 or A.shape[0] != channels:
        raise ValueError(
            f"A must be (channels, states) with {channels} channels; got {tuple(A.shape)}"
        )
    states = A.shape[1]
    wanted = {
        "delta": (delta, (batch, time, channels)),
        "B": (B, (batch, time, states)),
        "C": (C, (batch, time, states)),
        "D": (D, (channels,)),
        "z": (z, (batch, time, channels)),
        "delta_bias": (delta_bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, states)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}; got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must hold floating-point numbers; got {tensor.dtype}")
        if tensor.device != u.device:
            raise ValueError(
                f"{name} is on {tensor.device}, u on {u.device}: move them to one device"
            )
