"""The ``mamba_ssm`` backend: the CUDA kernel of the package of that name, where it is installed.

That kernel knows neither lengths nor directions. Both are composed exactly: a frame with step 0 leaves
the state as it is, so padding can be run through, and a reversed scan is the scan of the reversed
frames. An initial state cannot be composed and is refused, and so is a gradient of the last state.
"""

import importlib
from functools import cache

import torch

from modules.ssm.masking import keep_valid, valid_frames


@cache
def _kernel():
    """The package's function, or why it cannot be had: an installed one may lack its CUDA part."""
    try:
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except (ImportError, OSError, AttributeError) as error:
        if getattr(error, "name", None) == "mamba_ssm":
            return "the package mamba_ssm is not installed (see requirements-cuda.txt)"
        return f"the package mamba_ssm cannot be used ({error})"


def mamba_ssm_refusal(u, A, lengths=None, initial_state=None):
    """Why these tensors cannot go to ``mamba_ssm``, or ``None``."""
    if u.device.type != "cuda":
        return f"mamba_ssm runs on CUDA only, and the tensors are on {u.device.type}"
    if isinstance(_kernel(), str):
        return _kernel()
    if initial_state is not None:
        return "mamba_ssm takes no initial state"
    if u.dtype == torch.float64:
        return "mamba_ssm has no float64 kernel"
    return None


def selective_scan_mamba_ssm(*args, **kwargs):
    """Selective scan by ``mamba_ssm``; arguments as in :func:`selective_scan_naive`.

    A gradient that reaches the last state raises ``RuntimeError``: that package's kernel would drop it.
    """
    out, last_state = scan_channel_major(_kernel(), *args, **kwargs)
    return out, _WithoutGradient.apply(last_state)


class _WithoutGradient(torch.autograd.Function):
    """The tensor itself; a gradient that comes back is an error."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError(
            "mamba_ssm passes no gradient through the last state; use backend='torch' where a loss reads it"
        )


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
    dtype = u.dtype
    if valid is not None:
        u, B, C, z = (keep_valid(t, valid) for t in (u, B, C, z))
        # what the kernel, in float32, makes a step of exactly 0 on invalid frames
        if delta_softplus:
            delta = delta.masked_fill(~valid.unsqueeze(-1), -1e4)
        else:
            if delta_bias is not None:
                # no padding of a half-precision delta cancels the bias exactly
                u, delta, delta_bias = u.float(), delta.float() + delta_bias.float(), None
            delta = keep_valid(delta, valid)

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
    out = out.transpose(1, 2).to(dtype)
    return keep_valid(out.flip(1) if reverse else out, valid), last_state
