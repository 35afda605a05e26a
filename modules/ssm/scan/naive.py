"""The selective scan as a loop over time: the reference that every other backend is compared with.

Nothing here is fast. It reads like the equations of "Mamba" (arXiv 2312.00752), section 3.2, with the
step discretised as ``exp(dt A)`` and ``dt B`` as in the published code.
"""

import torch
from torch.nn import functional as F

from modules.ssm.masking import keep_valid, valid_frames


def compute_dtype(*tensors):
    """float64 if any tensor is, otherwise float32: the scan never runs in half precision."""
    double = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if double else torch.float32


def selective_scan_naive(
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
    """Selective scan, one frame after another; arguments as in :func:`modules.ssm.selective_scan`.

    ``B`` and ``C`` may also be given for every channel, ``(batch, time, channels, states)``, in which
    any of the first three dimensions may be 1.

    Returns
    -------
    out : torch.Tensor
        (batch, time, channels), in the dtype of ``u``.
    last_state : torch.Tensor
        (batch, channels, states), float32 (float64 if any input is).
    """
    batch, time, channels = u.shape
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
    with torch.autocast(u.device.type, enabled=False):
        valid = valid_frames(lengths, time, u.device)
        u_, delta_, z_ = (
            keep_valid(t, valid) if t is None else keep_valid(t.to(dtype), valid)
            for t in (u, delta, z)
        )
        B_, C_ = (_per_channel(t.to(dtype), valid, time) for t in (B, C))
        A_ = A.to(dtype)
        dt = delta_ if delta_bias is None else delta_ + delta_bias.to(dtype)
        if delta_softplus:
            dt = F.softplus(dt)

        if initial_state is None:
            h = A_.new_zeros(batch, channels, A.shape[1])
        else:
            h = initial_state.to(dtype)
        y = [None] * time
        for t in reversed(range(time)) if reverse else range(time):
            dt_t = dt[:, t, :, None]
            new = torch.exp(dt_t * A_) * h + dt_t * u_[:, t, :, None] * B_[:, t]
            h = new if valid is None else torch.where(valid[:, t, None, None], new, h)
            y[t] = (h * C_[:, t]).sum(-1)
        y = torch.stack(y, 1) if time else torch.zeros_like(u_)
        if D is not None:
            y = y + D.to(dtype) * u_
        if z is not None:
            y = y * F.silu(z_)
        return keep_valid(y, valid).to(u.dtype), h


def _per_channel(x, valid, time):
    """B or C as (batch, time, channels or 1, states), zeros on invalid frames."""
    if x.dim() == 3:
        x = x.unsqueeze(2)
    return keep_valid(x.expand(-1, time, -1, -1), valid)
