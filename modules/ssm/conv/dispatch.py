"""The causal convolution's front door: checks the tensors, chooses a backend and calls it."""

from torch.nn import functional as F

from modules.ssm.backends import Backends, no_refusal
from modules.ssm.checks import (
    check_count,
    check_input,
    check_switch,
    check_tensor,
    frame_counts,
    is_dense,
)
from modules.ssm.conv.cpu import causal_conv1d_cpu, cpu_refusal
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.conv.torch_backend import causal_conv1d_torch
from modules.ssm.conv.triton_backend import causal_conv1d_triton, triton_refusal

BACKENDS = Backends(
    "causal convolution",
    {
        "cpu": (causal_conv1d_cpu, cpu_refusal),
        "triton": (causal_conv1d_triton, triton_refusal),
        "torch": (causal_conv1d_torch, no_refusal),
        "naive": (causal_conv1d_naive, no_refusal),
        # for exporters, which take what torch has
        "graph": (causal_conv1d_torch, no_refusal),
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
        If an argument has another type, shape or device, or the activation is another.

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
    check_switch("reverse", reverse)
    lengths = frame_counts(lengths, x)
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
        If an argument has another type, shape or device, or ``ahead`` is not within the width.

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
    check_count("ahead", ahead, least=0)
    if ahead >= width:
        raise ValueError(f"ahead must lie in 0..{width - 1}, the width - 1; got {ahead}")
    if BACKENDS.prefer(x=x, weight=weight, bias=bias, initial_state=None) == "cpu":
        return causal_conv1d_cpu(x, weight, bias, ahead=ahead)[0]
    if not x.shape[1]:
        return x
    x = F.pad(x.transpose(1, 2), (width - 1 - ahead, ahead))
    kernel, bias = weight.unsqueeze(1).to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.conv1d(x, kernel, bias, groups=x.shape[1]).transpose(1, 2)


def check_conv(x, weight, bias, activation, initial_state):
    """The weight as (channels, width); ``ValueError`` if the arguments are no convolution's."""
    check_input("x", x, ("batch", "time", "channels"))
    device, channels = x.device, x.shape[2]
    if not channels:
        raise ValueError(f"x must have one channel or more; got {tuple(x.shape)}")
    width = "width"
    if is_dense(weight):
        if weight.dim() == 3 and weight.shape[1] == 1:
            weight = weight.squeeze(1)
        if weight.dim() != 2 or weight.shape[0] != channels or not weight.shape[1]:
            raise ValueError(
                f"weight must be ({channels}, width) for {channels} channels, of one frame or more; "
                f"got {tuple(weight.shape)}"
            )
        width = weight.shape[1]
    check_tensor("weight", weight, (channels, width), device)
    if bias is not None:
        check_tensor("bias", bias, (channels,), device)
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation must be None or 'silu'; got {activation!r}")
    if initial_state is not None:
        check_tensor("initial_state", initial_state, (x.shape[0], channels, width), device)
    return weight
