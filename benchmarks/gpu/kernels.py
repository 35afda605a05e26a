"""The implementations that a check compares, by name, and random tensors for them.

They are called directly, not through the choice of a backend, so that a check says which code ran.
"""

import torch

from modules.ssm.conv.bidirectional import composed as two_convolutions
from modules.ssm.conv.torch_backend import causal_conv1d_torch
from modules.ssm.conv.triton_backend import bidirectional_conv1d_triton, causal_conv1d_triton
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.scan.composed import composed as two_scans
from modules.ssm.scan.triton_backend import bidirectional_scan_triton, selective_scan_triton

SCANS = {"torch": selective_scan_chunked, "triton": selective_scan_triton}
BOTH_SCANS = {"torch": two_scans(selective_scan_chunked), "triton": bidirectional_scan_triton}
CONVOLUTIONS = {"torch": causal_conv1d_torch, "triton": causal_conv1d_triton}
BOTH_CONVOLUTIONS = {
    "torch": two_convolutions(causal_conv1d_torch),
    "triton": bidirectional_conv1d_triton,
}
# the scan's tensors in the order of its arguments, and what both directions share
TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
SHARED = ("x", "z")


def normal(*size, dtype=torch.float32, device):
    """Random numbers that want a gradient."""
    return torch.randn(*size, device=device).to(dtype).requires_grad_()


def scan_tensors(shape, dtype, device, plain=False):
    """Random arguments of a selective scan by name, distributed as in a Mamba block.

    Arguments
    ---------
    shape : tuple of int
        (batch, time, channels, states).
    dtype : torch.dtype
        Type of what changes with time; the parameters are float32.
    device : torch.device
    plain : bool
        Without D, z and bias.
    """
    batch, time, channels, states = shape
    wide, narrow = (batch, time, channels), (batch, time, states)
    varying = {"dtype": dtype, "device": device}
    count = torch.arange(1.0, states + 1, device=device)
    decay = -count * torch.empty(channels, 1, device=device).uniform_(0.8, 1.2)
    step = torch.empty(channels, device=device).uniform_(0.001, 0.1)
    tensors = {
        "u": normal(*wide, **varying),
        "delta": normal(*wide, **varying),
        "A": decay.requires_grad_(),
        "B": normal(*narrow, **varying),
        "C": normal(*narrow, **varying),
        "D": normal(channels, device=device),
        "z": normal(*wide, **varying),
        # the inverse of softplus
        "delta_bias": (step + torch.log(-torch.expm1(-step))).requires_grad_(),
    }
    return tensors | dict.fromkeys(("D", "z", "delta_bias") if plain else ())


def conv_tensors(shape, dtype, device, plain=False):
    """Random arguments of a convolution by name, for a shape (batch, time, channels, width)."""
    del plain
    batch, time, channels, width = shape
    return {
        "x": normal(batch, time, channels, dtype=dtype, device=device),
        "weight": normal(channels, width, device=device),
        "bias": normal(channels, device=device),
    }


def in_pairs(first, second):
    """Two directions' tensors by name as pairs, except what both share."""
    return {name: t if name in SHARED else (t, second[name]) for name, t in first.items()}


def leaves(tensors):
    """Tensors by name, pairs unpacked and absent ones left out."""
    found = {}
    for name, tensor in tensors.items():
        pair = tensor if isinstance(tensor, tuple) else (tensor,)
        for one, suffix in zip(pair, ("", " backward"), strict=False):
            if one is not None:
                found[name + suffix] = one
    return found
