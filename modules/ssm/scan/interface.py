"""The selective scan under the names, signature and (batch, channels, time) layout of ``mamba_ssm``.

Code written for ``mamba_ssm.ops.selective_scan_interface`` runs on these two functions unchanged, on any
device, constant and grouped B and C included.
"""

import torch

from modules.ssm.scan.dispatch import selective_scan
from modules.ssm.scan.naive import selective_scan_naive


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
        If A, B or C is complex or a shape does not fit.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import selective_scan_fn
    >>> u = torch.randn(2, 4, 10)
    >>> selective_scan_fn(u, torch.rand(2, 4, 10), -torch.rand(4, 3), torch.randn(2, 3, 10), torch.randn(4, 3)).shape
    torch.Size([2, 4, 10])
    """
    _refuse_complex(A, B, C)
    groups = _groups(B, C, u.shape[1])
    if groups is None:
        # a B or C of each channel's own: not what speech models use, so the reference serves
        return selective_scan_ref(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state
        )
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
    """The same by a plain loop over time; arguments as in :func:`selective_scan_fn`."""
    _refuse_complex(A, B, C)
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


def _refuse_complex(*tensors):
    if any(t.is_complex() for t in tensors):
        raise ValueError(
            "complex state-space parameters are not supported: A, B and C must be real"
        )


def _groups(B, C, channels):
    """How many groups of channels share B and C; ``None`` where one of them is constant in time."""
    if B.dim() == 2 or C.dim() == 2:
        return None
    counts = {t.shape[1] if t.dim() == 4 else 1 for t in (B, C)} - {1}
    groups = counts.pop() if counts else 1
    if counts or channels % groups:
        raise ValueError(
            f"{channels} channels can not be dealt to the groups of B {tuple(B.shape)} and C {tuple(C.shape)}"
        )
    return groups


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
