"""The implementations that a check compares, by name, and random tensors for them.

They are called directly, not through the choice of a backend, so that a check says which code ran.
"""

import torch
from torch.nn import functional as F

from modules.ssm.conv import cpu as conv_cpu
from modules.ssm.conv import triton_backend as conv_triton
from modules.ssm.conv.torch_backend import causal_conv1d_torch
from modules.ssm.scan import cpu as scan_cpu
from modules.ssm.scan import triton_backend as scan_triton
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.scan.mamba_ssm_backend import mamba_ssm_refusal, selective_scan_mamba_ssm


def _fits(*tensors, **more):
    """The portable implementations take anything."""
    return


# name: (function, why it cannot take the tensors)
SCANS = {
    "torch": (selective_scan_chunked, _fits),
    "cpu": (scan_cpu.selective_scan_cpu, scan_cpu.cpu_refusal),
    "triton": (scan_triton.selective_scan_triton, scan_triton.triton_refusal),
    "mamba_ssm": (selective_scan_mamba_ssm, mamba_ssm_refusal),
}
CONVOLUTIONS = {
    "torch": (causal_conv1d_torch, _fits),
    "cpu": (conv_cpu.causal_conv1d_cpu, conv_cpu.cpu_refusal),
    "triton": (conv_triton.causal_conv1d_triton, conv_triton.triton_refusal),
}
TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def available(table, *tensors):
    """Names of those in a table that can take the tensors, and why the others cannot."""
    reasons = {name: refusal(*tensors) for name, (_, refusal) in table.items()}
    return (
        [name for name, reason in reasons.items() if reason is None],
        {name: reason for name, reason in reasons.items() if reason is not None},
    )


def scan_tensors(shape, dtype, device, given=False, plain=False):
    """Random arguments of a selective scan, distributed as in a Mamba block.

    Arguments
    ---------
    shape : tuple of int
        (batch, time, channels, states).
    dtype : torch.dtype
        Of what changes with time; the parameters and the state are float32.
    device : torch.device
    given : bool
        With an initial state.
    plain : bool
        Without D, z and bias.

    Returns
    -------
    dict of str: torch.Tensor or None
    """
    batch, time, channels, states = shape

    def normal(*size, dtype=dtype):
        return torch.randn(*size, device=device).to(dtype).requires_grad_()

    wide = {"dtype": torch.float32}
    count = torch.arange(1, states + 1, device=device, dtype=torch.float32)
    decay = -count * torch.empty(channels, 1, device=device).uniform_(0.8, 1.2)
    step = torch.empty(channels, device=device).uniform_(0.001, 0.1)
    return {
        "u": normal(batch, time, channels),
        "delta": (0.5 * torch.randn(batch, time, channels, device=device))
        .to(dtype)
        .requires_grad_(),
        "A": decay.requires_grad_(),
        "B": normal(batch, time, states),
        "C": normal(batch, time, states),
        "D": None if plain else normal(channels, **wide),
        "z": None if plain else normal(batch, time, channels),
        # the inverse of softplus
        "delta_bias": None if plain else (step + torch.log(-torch.expm1(-step))).requires_grad_(),
        "initial_state": normal(batch, channels, states, **wide) if given else None,
    }


def composed(scan):
    """Both directions by two calls of ``scan``, called like a fused function."""

    def both(u, delta, A, B, C, D, z, bias, softplus, *, lengths=None, initial_state=None):
        one, two = zip(u, delta, A, B, C, D, (z, z), bias, strict=True)
        out, last = scan(*one, softplus, lengths=lengths, initial_state=initial_state)
        return out + scan(*two, softplus, lengths=lengths, reverse=True)[0], last

    return both


def bidirectional_scans():
    """Functions of both directions by name: fused where there is one."""
    fused = {"triton": scan_triton.bidirectional_scan_triton}
    return {name: fused.get(name) or composed(scan) for name, (scan, _) in SCANS.items()}


def published_block(block, selective_scan_fn, causal_conv1d_fn):
    """The forward pass of a bidirectional block as published: channel-major, flipped for the second direction.

    Arguments
    ---------
    block : modules.ssm.BiMamba
        Whose parameters are used.
    selective_scan_fn, causal_conv1d_fn : callable
        Of the packages mamba_ssm and causal_conv1d; for the latter ``None`` takes torch's convolution.

    Returns
    -------
    callable
        From (batch, time, d_model) to the same.
    """

    def convolve(x, conv):
        if causal_conv1d_fn is None:
            return F.silu(conv(x)[..., : x.shape[-1]])
        return causal_conv1d_fn(x, conv.weight.squeeze(1), conv.bias, activation="silu")

    def branch(xz, suffix):
        x, z = xz.chunk(2, dim=1)
        a_log = block.A_b_log if suffix else block.A_log
        dt_proj = getattr(block, f"dt_proj{suffix}")
        x = convolve(x, getattr(block, f"conv1d{suffix}"))
        projected = getattr(block, f"x_proj{suffix}")(x.transpose(1, 2))
        sizes = [block.dt_rank, block.d_state, block.d_state]
        dt, B, C = (t.transpose(1, 2) for t in projected.split(sizes, dim=-1))
        delta = torch.matmul(dt_proj.weight.to(dt.dtype), dt)
        B, C = B.contiguous(), C.contiguous()
        A, D = -torch.exp(a_log.float()), getattr(block, f"D{suffix}").float()
        return selective_scan_fn(x, delta, A, B, C, D, z, dt_proj.bias.float(), True)

    def forward(x):
        xz = block.in_proj(x).transpose(1, 2).contiguous()
        y = branch(xz, "") + branch(xz.flip(-1), "_b").flip(-1)
        return block.out_proj((0.5 * y if block.average else y).transpose(1, 2))

    return forward
