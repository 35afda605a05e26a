"""Every operator with arguments that fit, and the sentence that refuses others."""

import re

import pytest
import torch

from modules.kws.retention import (
    MultiScaleRetention,
    decay_rates,
    retention_chunkwise,
    retention_parallel,
    retention_recurrent,
)
from modules.ssm import (
    BiMamba,
    Mamba,
    MambaStack,
    bidirectional_conv1d,
    bidirectional_scan,
    causal_conv1d,
    depthwise_conv1d,
    selective_scan,
    selective_scan_fn,
    selective_scan_ref,
)

BATCH, TIME, CHANNELS, STATES, WIDTH = 2, 6, 4, 3, 3


def scan_inputs():
    """Arguments of a scan that fit."""
    return {
        "u": torch.randn(BATCH, TIME, CHANNELS),
        "delta": torch.rand(BATCH, TIME, CHANNELS),
        "A": -torch.rand(CHANNELS, STATES),
        "B": torch.randn(BATCH, TIME, STATES),
        "C": torch.randn(BATCH, TIME, STATES),
        "D": torch.randn(CHANNELS),
        "z": torch.randn(BATCH, TIME, CHANNELS),
        "delta_bias": torch.randn(CHANNELS),
        "initial_state": torch.randn(BATCH, CHANNELS, STATES),
    }


def channel_major():
    """Arguments of the functions in the layout of `mamba_ssm`."""
    tensors = scan_inputs()
    del tensors["initial_state"]
    return {k: v.transpose(1, 2).contiguous() if v.dim() == 3 else v for k, v in tensors.items()}


def conv_inputs():
    """Arguments of a convolution that fit."""
    return {
        "x": torch.randn(BATCH, TIME, CHANNELS),
        "weight": torch.randn(CHANNELS, WIDTH),
        "bias": torch.randn(CHANNELS),
        "initial_state": torch.randn(BATCH, CHANNELS, WIDTH),
    }


def retention_inputs():
    """Arguments of a retention that fit."""
    q, k, v = torch.randn(3, BATCH, TIME, 2, CHANNELS).unbind()
    return {
        "q": q,
        "k": k,
        "v": v,
        "decay": decay_rates(2),
        "state": torch.randn(BATCH, 2, CHANNELS, CHANNELS),
    }


def both(function, shared):
    """An operator on pairs as one on single tensors: both directions get the same."""

    def called(lengths=None, **tensors):
        pairs = {k: v if k in shared else (v, v) for k, v in tensors.items()}
        return function(**pairs, lengths=lengths)

    return called


def ahead(x, weight, bias):
    return depthwise_conv1d(x, weight, bias, ahead=1)


BLOCK, BOTH_WAYS, STACK = Mamba(CHANNELS), BiMamba(CHANNELS), MambaStack(2, CHANNELS)
RETENTION = MultiScaleRetention(CHANNELS, 2)
WITHOUT_STATE = {k: v for k, v in conv_inputs().items() if k != "initial_state"}

# operator: (function, arguments that fit)
OPERATORS = {
    "selective_scan": (selective_scan, scan_inputs()),
    "bidirectional_scan": (both(bidirectional_scan, ("z", "initial_state")), scan_inputs()),
    "selective_scan_fn": (selective_scan_fn, channel_major()),
    "selective_scan_ref": (selective_scan_ref, channel_major()),
    "causal_conv1d": (causal_conv1d, conv_inputs()),
    "bidirectional_conv1d": (both(bidirectional_conv1d, ("x", "initial_state")), conv_inputs()),
    "depthwise_conv1d": (ahead, WITHOUT_STATE),
    "Mamba": (BLOCK, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "BiMamba": (BOTH_WAYS, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "MambaStack": (STACK, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "Mamba.final_state": (BLOCK.final_state, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "Mamba.step": (
        lambda x_t: BLOCK.step(x_t, BLOCK.initial_state(BATCH)),
        {"x_t": torch.randn(BATCH, CHANNELS)},
    ),
    "retention_parallel": (retention_parallel, retention_inputs()),
    "retention_recurrent": (retention_recurrent, retention_inputs()),
    "retention_chunkwise": (retention_chunkwise, retention_inputs()),
    "MultiScaleRetention": (RETENTION, dict.fromkeys("qkv", torch.randn(BATCH, TIME, CHANNELS))),
}
WITH_LENGTHS = (
    "selective_scan",
    "bidirectional_scan",
    "causal_conv1d",
    "bidirectional_conv1d",
    "Mamba",
    "BiMamba",
    "MambaStack",
    "Mamba.final_state",
)


def refuse(call, *names):
    """Assert that a call is refused in one sentence that names the argument, or one of them."""
    with pytest.raises(ValueError) as caught:
        call()
    said = str(caught.value)
    assert re.match("|".join(rf"{re.escape(name)}\b" for name in names), said), said
    assert re.search(r"must|is on|are on|is complex|holds", said) and "\n" not in said, said
