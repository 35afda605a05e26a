"""The causal depthwise convolution as a loop over utterances, frames and taps: the reference."""

import torch
from torch.nn import functional as F


def causal_conv1d_naive(
    x, weight, bias=None, activation=None, *, lengths=None, reverse=False, initial_state=None
):
    """Causal convolution; arguments as in :func:`modules.ssm.causal_conv1d`.

    Returns
    -------
    out : torch.Tensor
        (batch, time, channels).
    last_state : torch.Tensor
        (batch, channels, width), the last ``width`` inputs, newest last.
    """
    batch, time, channels = x.shape
    width = weight.shape[1]
    if not batch:
        return x, x.new_empty(0, channels, width)
    outputs, states = [], []
    for item in range(batch):
        length = time if lengths is None else int(lengths[item])
        order = range(length - 1, -1, -1) if reverse else range(length)
        if initial_state is None:
            window = [x.new_zeros(channels)] * width
        else:
            window = list(initial_state[item].to(x.dtype).unbind(-1))
        frames = [x.new_zeros(channels)] * time
        for t in order:
            window = window[1:] + [x[item, t]]
            y = sum(weight[:, tap].to(x.dtype) * window[tap] for tap in range(width))
            if bias is not None:
                y = y + bias.to(x.dtype)
            frames[t] = y if activation is None else F.silu(y)
        outputs.append(torch.stack(frames) if time else x[item])
        states.append(torch.stack(window, -1))
    return torch.stack(outputs), torch.stack(states)
