"""The ``torch`` backend: the causal convolution by ``torch.nn.functional.conv1d``, on any device."""

import torch
from torch.nn import functional as F

from modules.ssm.masking import keep_valid, valid_frames


def causal_conv1d_torch(
    x, weight, bias=None, activation=None, *, lengths=None, reverse=False, initial_state=None
):
    """Causal convolution; arguments and results as in :func:`causal_conv1d_naive`."""
    time, (channels, width) = x.shape[1], weight.shape
    valid = valid_frames(lengths, time, x.device)
    x = keep_valid(x, valid)

    # (batch, channels, width + time): what was before, then the utterance; or mirrored
    extended = _extend(x, width, lengths, reverse, initial_state)
    if not time:
        return x, _last_state(extended, width, lengths, reverse)
    kernel = (weight.flip(1) if reverse else weight).unsqueeze(1).to(x.dtype)
    inner = extended[..., :-1] if reverse else extended[..., 1:]
    y = F.conv1d(inner, kernel, None if bias is None else bias.to(x.dtype), groups=channels)
    y = keep_valid((y if activation is None else F.silu(y)).transpose(1, 2), valid)
    return y, _last_state(extended, width, lengths, reverse)


def _extend(x, width, lengths, reverse, initial_state):
    batch, time, channels = x.shape
    x = x.transpose(1, 2)
    before = (
        x.new_zeros(batch, channels, width) if initial_state is None else initial_state.to(x.dtype)
    )
    if not reverse:
        return torch.cat([before, x], -1)
    if initial_state is None or lengths is None:
        return torch.cat([x, before.flip(-1)], -1)
    # each utterance's state stands right behind its own end
    place = torch.arange(time + width, device=x.device) - lengths.unsqueeze(
        1
    )  # (batch, time + width)
    source = torch.where(place < 0, place + lengths.unsqueeze(1), place.clamp(max=width - 1) + time)
    joined = torch.cat([x, before.flip(-1)], -1)
    joined = joined.gather(2, source.unsqueeze(1).expand(-1, channels, -1))
    return joined.masked_fill((place >= width).unsqueeze(1), 0.0)


def _last_state(extended, width, lengths, reverse):
    if reverse:
        return extended[..., :width].flip(-1)
    if lengths is None:
        return extended[..., -width:]
    index = lengths.unsqueeze(1) + torch.arange(width, device=extended.device)  # (batch, width)
    return extended.gather(2, index.unsqueeze(1).expand(-1, extended.shape[1], -1))
