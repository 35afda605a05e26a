"""Inputs of the selective scan, and its output, last state and gradients compared between backends."""

import torch

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def make_inputs(batch, time, channels, states, dtype=torch.float64, given_state=True):
    """Random inputs by name: u, delta, z (batch, time, channels); A (channels, states); B, C (batch, time, states)."""
    tensors = {
        "u": torch.randn(batch, time, channels),
        "delta": torch.randn(batch, time, channels),
        "A": -torch.rand(channels, states) * 4,
        "B": torch.randn(batch, time, states),
        "C": torch.randn(batch, time, states),
        "D": torch.randn(channels),
        "z": torch.randn(batch, time, channels),
        "delta_bias": torch.randn(channels),
        "initial_state": torch.randn(batch, channels, states) if given_state else None,
    }
    return {k: None if v is None else v.to(dtype).requires_grad_() for k, v in tensors.items()}


def as_leaves(inputs, dtype=torch.float32, device="cpu"):
    """The inputs as leaves of another type and on another device; what is not given stays so."""
    return {
        k: None if v is None else v.detach().to(device, dtype).requires_grad_()
        for k, v in inputs.items()
    }


def run(scan, inputs, lengths, reverse):
    """Output, last state and every gradient of a loss that reads both."""
    inputs = dict(inputs)
    initial = inputs.pop("initial_state")
    out, last = scan(
        **inputs, delta_softplus=True, lengths=lengths, reverse=reverse, initial_state=initial
    )
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    loss = (out * weight).sum() + (last * last).sum()
    wanted = [t for t in (*inputs.values(), initial) if t is not None]
    return out, last, *torch.autograd.grad(loss, wanted)


def assert_close(expected, got, tolerance):
    """Assert that outputs, last states and gradients agree, relative to the largest magnitude that is wanted."""
    names = ("out", "last_state", *(f"d{name}" for name in NAMES))
    for name, a, b in zip(names, expected, got, strict=False):
        scale = max(a.abs().max().item(), 1e-6) if a.numel() else 1.0
        error = (a - b).abs().max().item() / scale if a.numel() else 0.0
        assert error < tolerance, f"{name}: relative error {error:.1e}"


def uneven(batch, time):
    """Lengths that include the whole, nothing, and something between."""
    return torch.tensor([time, 0, time // 2, max(time - 1, 0)])[:batch]
