"""Causal depthwise convolution over time with lengths, direction and state."""

from modules.ssm.conv.dispatch import causal_conv1d

__all__ = ["causal_conv1d"]
