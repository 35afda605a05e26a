"""The causal convolution's front door: checks the tensors, chooses a backend and calls it."""

from torch.nn import functional as F

from modules.ssm.backends import Backends, no_refusal
from modules.ssm.conv.cpu import causal_conv1d_cpu, cpu_refusal
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.conv.torch_backend import causal_conv1d_torch
from modules.ssm.conv.triton_backend import causal_conv1d_triton, triton_refusal
from modules.ssm.masking import check_lengths

BACKENDS = Backends(
    "causal convolution",
    {
        "cpu": (causal_conv1d_cpu, cpu_refusal),
        "triton": (causal_conv1d_triton, triton_refusal),
        "torch": (causal_conv1d_torch, no_refusal),
        "naive": (causal_conv1d_naive, no_refusal),
    },
)


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
    weight = check_conv(x, weight, bias, activation, initial_state)
    check_lengths(lengths, *x.shape[:2])
    if lengths is not None:
        lengths = lengths.to(x.device)
    name = BACKENDS.prefer(x=x, weight=weight, bias=bias, initial_state=initial_state)
    y, last_state = BACKENDS[name](
        x,
        weight,
        bias,
        activation,
        lengths=lengths,
        reverse=reverse,
        initial_state=initial_state,
    )
    return (y, last_state) if return_last_state else y


def depthwise_conv1d(x, weight, bias=None, *, ahead):
    """A depthwise convolution that sees ``ahead`` frames of the future, zeros outside the utterance.

    ``out[t] = bias + sum_k weight[:, k] x[t + ahead - width + 1 + k]``; ``ahead = width // 2`` makes one of odd
    width symmetric.

    Arguments
    ---------
    x, weight, bias
        As in :func:`causal_conv1d`.
    ahead : int
        0 to ``width - 1`` frames.

    Returns
    -------
    torch.Tensor
        (batch, time, channels).

    Raises
    ------
    ValueError
        If shapes do not fit or ``ahead`` is not within the width.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import depthwise_conv1d
    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> depthwise_conv1d(x, torch.tensor([[1.0, 10.0, 100.0]]), ahead=1).flatten().tolist()
    [210.0, 321.0, 32.0]
    """
    weight = check_conv(x, weight, bias, None, None)
    width = weight.shape[1]
    if not 0 <= ahead < width:
        raise ValueError(f"ahead must lie in 0..{width - 1}, the width - 1; got {ahead}")
    if BACKENDS.prefer(x=x, weight=weight, bias=bias, initial_state=None) == "cpu":
        return causal_conv1d_cpu(x, weight, bias, ahead=ahead)[0]
    x = F.pad(x.transpose(1, 2), (width - 1 - ahead, ahead))
    kernel, bias = weight.unsqueeze(1).to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.conv1d(x, kernel, bias, groups=x.shape[1]).transpose(1, 2)


def check_conv(x, weight, bias, activation, initial_state):
    """The weight as (channels, width); ``ValueError`` if the arguments are no convolution's."""
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, time, channels); got {tuple(x.shape)}")
    if weight.dim() == 3 and weight.shape[1] == 1:
        weight = weight.squeeze(1)
    if weight.dim() != 2 or weight.shape[0] != x.shape[2]:
        raise ValueError(
            f"weight must be ({x.shape[2]}, width) for {x.shape[2]} channels; got {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},); got {tuple(bias.shape)}")
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation must be None or 'silu'; got {activation!r}")
    state_shape = (x.shape[0], *weight.shape)
    if initial_state is not None and tuple(initial_state.shape) != state_shape:
        raise ValueError(
            f"initial_state must have shape {state_shape}; got {tuple(initial_state.shape)}"
        )
    return weight
