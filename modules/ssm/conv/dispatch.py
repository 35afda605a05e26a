"""The causal convolution's front door, and its portable implementation by ``torch.nn.functional.conv1d``.

CPU tensors go to the compiled kernel where it can be built.
"""

import torch
from torch.nn import functional as F

from modules.ssm.conv.cpu import causal_conv1d_cpu, cpu_refusal
from modules.ssm.lengths import check_lengths, keep_valid, valid_frames


def causal_conv1d(
    x,
    weight,
    bias=None,
    activation=None,
    *,
    lengths=None,
    reverse=False,
    initial_state=None,
    return_last_state=False,
):
    """Causal depthwise convolution over time.

    ``out[t] = activation(bias + sum_k weight[:, k] x[t - width + 1 + k])``, with zeros, or what
    ``initial_state`` holds, before the first frame.

    Arguments
    ---------
    x : torch.Tensor
        (batch, time, channels).
    weight : torch.Tensor
        (channels, width), the newest frame's tap last; (channels, 1, width) is taken as well.
    bias : torch.Tensor, optional
        (channels,).
    activation : str, optional
        ``silu`` (or its other name ``swish``), or ``None``.
    lengths : torch.Tensor, optional
        (batch,) integer frame counts; frames at or past them are read as nothing and give 0.
    reverse : bool
        Run from each utterance's last valid frame to its first, so that ``out[t]`` sees frame t and the
        ``width - 1`` frames after it.
    initial_state : torch.Tensor, optional
        (batch, channels, width), the inputs before the first frame that is processed, newest last.
    return_last_state : bool
        Also return the last ``width`` inputs in the same form.

    Returns
    -------
    torch.Tensor or (torch.Tensor, torch.Tensor)
        (batch, time, channels), and the state (batch, channels, width) in the dtype of ``x``.

    Raises
    ------
    ValueError
        If shapes do not fit or the activation is another.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import causal_conv1d
    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> causal_conv1d(x, torch.tensor([[10.0, 1.0]])).flatten().tolist()
    [1.0, 12.0, 23.0]
    >>> causal_conv1d(x, torch.tensor([[10.0, 1.0]]), reverse=True).flatten().tolist()
    [21.0, 32.0, 3.0]
    """
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, time, channels); got {tuple(x.shape)}")
    if weight.dim() == 3 and weight.shape[1] == 1:
        weight = weight.squeeze(1)
    if weight.dim() != 2 or weight.shape[0] != x.shape[2]:
        raise ValueError(
            f"weight must be ({x.shape[2]}, width) for {x.shape[2]} channels; got {tuple(weight.shape)}"
        )
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation must be None or 'silu'; got {activation!r}")
    batch, time, channels = x.shape
    width = weight.shape[1]
    if initial_state is not None and tuple(initial_state.shape) != (batch, channels, width):
        raise ValueError(
            f"initial_state must have shape {(batch, channels, width)}; got {tuple(initial_state.shape)}"
        )
    check_lengths(lengths, batch, time)
    if lengths is not None:
        lengths = lengths.to(x.device)
    if cpu_refusal(x, weight, bias, initial_state) is None:
        options = {"lengths": lengths, "reverse": reverse, "initial_state": initial_state}
        y, last_state = causal_conv1d_cpu(x, weight, bias, activation, **options)
        return (y, last_state) if return_last_state else y
    valid = valid_frames(lengths, time, x.device)
    x = keep_valid(x, valid)

    # (batch, channels, width + time): what was before, then the utterance; or mirrored
    extended = _extend(x, width, lengths, reverse, initial_state)
    kernel = (weight.flip(1) if reverse else weight).unsqueeze(1).to(x.dtype)
    inner = extended[..., :-1] if reverse else extended[..., 1:]
    y = F.conv1d(inner, kernel, None if bias is None else bias.to(x.dtype), groups=channels)
    y = keep_valid((y if activation is None else F.silu(y)).transpose(1, 2), valid)
    if not return_last_state:
        return y
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
