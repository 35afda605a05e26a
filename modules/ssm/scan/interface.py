"""The selective scan under the names, signature and (batch, channels, time) layout of ``mamba_ssm``.

Code written for ``mamba_ssm.ops.selective_scan_interface`` runs on these two functions unchanged, on any
device, constant and grouped B and C included.
"""

import torch
from torch.nn import functional as F

from modules.ssm.checks import (
    check_input,
    check_state_matrix,
    check_switch,
    check_tensor,
    is_dense,
)
from modules.ssm.scan.dispatch import selective_scan
from modules.ssm.scan.naive import compute_dtype, selective_scan_naive


def selective_scan_fn(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
):
    """Selective scan, channel-major.

    Arguments
    ---------
    u, delta, z : torch.Tensor
        (batch, channels, time).
    A : torch.Tensor
        (channels, states), real.
    B, C : torch.Tensor
        (batch, states, time), or (batch, groups, states, time) with the channels dealt to the groups in
        order, or (channels, states) constant in time.
    D, delta_bias : torch.Tensor, optional
        (channels,).
    delta_softplus, return_last_state : bool
        As in :func:`modules.ssm.selective_scan`.

    Returns
    -------
    torch.Tensor or (torch.Tensor, torch.Tensor)
        (batch, channels, time), and the last state (batch, channels, states).

    Raises
    ------
    ValueError
        If an argument has another type, shape or device.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import selective_scan_fn
    >>> u = torch.randn(2, 4, 10)
    >>> selective_scan_fn(u, torch.rand(2, 4, 10), -torch.rand(4, 3), torch.randn(2, 3, 10), torch.randn(4, 3)).shape
    torch.Size([2, 4, 10])
    """
    _check(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    if B.dim() == 2 or C.dim() == 2:
        out, last_state = _with_own_states(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        return (out, last_state) if return_last_state else out
    groups = max(t.shape[1] if t.dim() == 4 else 1 for t in (B, C))
    width = u.shape[1] // groups
    parts = []
    for group in range(groups):
        channels = slice(group * width, (group + 1) * width)
        parts.append(
            selective_scan(
                u[:, channels].transpose(1, 2),
                delta[:, channels].transpose(1, 2),
                A[channels],
                _of_group(B, group),
                _of_group(C, group),
                None if D is None else D[channels],
                None if z is None else z[:, channels].transpose(1, 2),
                None if delta_bias is None else delta_bias[channels],
                delta_softplus,
                return_last_state=True,
            )
        )
    out = torch.cat([out for out, _ in parts], -1).transpose(1, 2)
    last_state = torch.cat([state for _, state in parts], 1)
    return (out, last_state) if return_last_state else out


def selective_scan_ref(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
):
    """The same by a plain loop over time; arguments, results and errors as in :func:`selective_scan_fn`."""
    _check(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    channels = u.shape[1]
    out, last_state = selective_scan_naive(
        u.transpose(1, 2),
        delta.transpose(1, 2),
        A,
        _of_channels(B, channels),
        _of_channels(C, channels),
        D,
        None if z is None else z.transpose(1, 2),
        delta_bias,
        delta_softplus,
    )
    out = out.transpose(1, 2)
    return (out, last_state) if return_last_state else out


def _check(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """Raise ``ValueError`` for what has another type, shape or device."""
    check_input("u", u, ("batch", "channels", "time"))
    device, (batch, channels, time) = u.device, u.shape
    states = check_state_matrix(A, channels, device)
    check_tensor("delta", delta, (batch, channels, time), device)
    _check_states("B", B, (batch, channels, states, time), 1, device)
    _check_states(
        "C", C, (batch, channels, states, time), B.shape[1] if B.dim() == 4 else 1, device
    )
    if z is not None:
        check_tensor("z", z, (batch, channels, time), device)
    for name, tensor in (("D", D), ("delta_bias", delta_bias)):
        if tensor is not None:
            check_tensor(name, tensor, (channels,), device)
    check_switch("delta_softplus", delta_softplus)


def _check_states(name, x, sizes, groups_of_B, device):
    """Check B or C in one of its layouts."""
    batch, channels, states, time = sizes
    shape = tuple(x.shape) if is_dense(x) else (batch, states, time)
    # the groups must share the channels out, and B's be C's where both have several
    groups = shape[1] if len(shape) == 4 and shape[1] else 1
    fitting = channels % groups == 0 and (groups == groups_of_B or 1 in (groups, groups_of_B))
    if not fitting or shape not in (
        (channels, states),
        (batch, states, time),
        (batch, groups, states, time),
    ):
        raise ValueError(
            f"{name} must be {(channels, states)}, {(batch, states, time)} or (batch, groups, "
            f"states, time) with {batch} items, {states} states, {time} frames of time and groups, "
            f"the same for B and C, that share {channels} channels out; got {shape}"
        )
    check_tensor(name, x, shape, device)


def _with_own_states(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """The scan where B or C differs from channel to channel: every state is a channel of its own.

    This holds the states of all frames in memory, as the loop does, without its steps through Python.
    """
    states = A.shape[1]
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias)
    B, C = (_of_channels(t, u.shape[1]).to(dtype) for t in (B, C))
    delta = delta.transpose(1, 2).to(dtype).repeat_interleave(states, dim=2)
    inputs = u.transpose(1, 2).to(dtype)
    driven = inputs.unsqueeze(-1) * B  # (batch, time, channels, states)
    one = driven.new_ones(1, 1, 1).expand(*driven.shape[:2], 1)
    h, last_state = selective_scan(
        driven.flatten(2),
        delta,
        A.reshape(-1, 1),
        one,
        one,
        delta_bias=None if delta_bias is None else delta_bias.repeat_interleave(states),
        delta_softplus=delta_softplus,
        return_last_state=True,
    )
    y = (h.reshape(driven.shape) * C).sum(-1)
    if D is not None:
        y = y + D.to(dtype) * inputs
    if z is not None:
        y = y * F.silu(z.transpose(1, 2).to(dtype))
    return y.transpose(1, 2).to(u.dtype), last_state.reshape(*last_state.shape[:1], *A.shape)


def _of_group(x, group):
    """B or C of one group as (batch, time, states)."""
    if x.dim() == 4:
        x = x[:, group if x.shape[1] > 1 else 0]
    return x.transpose(1, 2)


def _of_channels(x, channels):
    """B or C as (batch or 1, time or 1, channels or 1, states)."""
    if x.dim() == 2:
        return x[None, None]
    if x.dim() == 3:
        return x.permute(0, 2, 1).unsqueeze(2)
    return x.permute(0, 3, 1, 2).repeat_interleave(channels // x.shape[1], dim=2)
