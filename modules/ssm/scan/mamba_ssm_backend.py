"""The ``mamba_ssm`` backend: the CUDA kernel of the package of that name, where it is installed.

That kernel knows neither lengths nor directions. Both are composed exactly: a frame with step 0 leaves
the state as it is, so padding can be run through, and a reversed scan is the scan of the reversed
frames. An initial state can not be composed and is refused.
"""

import importlib.util
from functools import cache

import torch
from torch.nn import functional as F

from modules.ssm.lengths import keep_valid, valid_frames


@cache
def _installed():
    return importlib.util.find_spec("mamba_ssm") is not None


def mamba_ssm_refusal(u, A, lengths=None, initial_state=None):
    """Why these tensors can not go to ``mamba_ssm``, or ``None``."""
    if u.device.type != "cuda":
        return f"mamba_ssm runs on CUDA only, and the tensors are on {u.device.type}"
    if not _installed():
        return "the package mamba_ssm is not installed (see requirements-cuda.txt)"
    if initial_state is not None:
        return "mamba_ssm takes no initial state"
    if u.dtype == torch.float64:
        return "mamba_ssm has no float64 kernel"
    return None


def selective_scan_mamba_ssm(*args, **kwargs):
    """Selective scan by ``mamba_ssm``; arguments as in :func:`selective_scan_naive`."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return scan_channel_major(selective_scan_fn, *args, **kwargs)


def scan_channel_major(
    scan,
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
    """The scan through ``scan``, a function with ``mamba_ssm``'s ``selective_scan_fn`` signature.

    Raises
    ------
    ValueError
        If an initial state is given.
    """
    if initial_state is not None:
        raise ValueError("mamba_ssm takes no initial state; use backend='auto'")
    valid = valid_frames(lengths, u.shape[1], u.device)
    if valid is not None:
        dt = delta.float() if delta_bias is None else delta.float() + delta_bias.float()
        delta = (F.softplus(dt) if delta_softplus else dt).to(delta.dtype)
        delta_bias, delta_softplus = None, False
        u, delta, B, C, z = (keep_valid(t, valid) for t in (u, delta, B, C, z))

    def channel_major(x):
        if x is None:
            return None
        return (x.flip(1) if reverse else x).transpose(1, 2).to(u.dtype).contiguous()

    out, last_state = scan(
        channel_major(u),
        channel_major(delta),
        A.float(),
        channel_major(B),
        channel_major(C),
        None if D is None else D.float(),
        channel_major(z),
        None if delta_bias is None else delta_bias.float(),
        delta_softplus,
        return_last_state=True,
    )
    out = out.transpose(1, 2)
    return keep_valid(out.flip(1) if reverse else out, valid), last_state
