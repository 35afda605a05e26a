"""Causal depthwise convolution over time with lengths, direction and state."""

from modules.ssm.conv.bidirectional import bidirectional_conv1d
from modules.ssm.conv.dispatch import causal_conv1d, depthwise_conv1d

__all__ = ["bidirectional_conv1d", "causal_conv1d", "depthwise_conv1d"]
