"""Both directions of a bidirectional block's convolution as one operation: one input, two kernels."""

from modules.ssm.checks import check_pair, frame_counts
from modules.ssm.conv.cpu import bidirectional_conv1d_cpu
from modules.ssm.conv.dispatch import BACKENDS, check_conv
from modules.ssm.conv.triton_backend import bidirectional_conv1d_triton

# backends with a function of their own for both directions; the others are called twice
BIDIRECTIONAL = {"cpu": bidirectional_conv1d_cpu, "triton": bidirectional_conv1d_triton}


def bidirectional_conv1d(x, weight, bias, activation=None, *, lengths=None, initial_state=None):
    """A causal convolution forwards and one backwards over the same input.

    Arguments
    ---------
    x : torch.Tensor
        (batch, time, channels).
    weight, bias : pair of torch.Tensor
        (forward, backward), each as in :func:`modules.ssm.causal_conv1d`; both biases, or the pair, may be ``None``.
    activation, lengths
        As in :func:`modules.ssm.causal_conv1d`.
    initial_state : torch.Tensor, optional
        (batch, channels, width), of the forward direction; the backward one starts from zeros.

    Returns
    -------
    (torch.Tensor, torch.Tensor, torch.Tensor)
        Forward and backward (batch, time, channels), and the forward direction's last inputs
        (batch, channels, width).

    Raises
    ------
    ValueError
        As :func:`modules.ssm.causal_conv1d`.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import bidirectional_conv1d
    >>> x, weight = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[10.0, 1.0]])
    >>> forward, backward, _ = bidirectional_conv1d(x, (weight, weight), (None, None))
    >>> forward.flatten().tolist(), backward.flatten().tolist()
    ([1.0, 12.0, 23.0], [21.0, 32.0, 3.0])
    """
    bias = (None, None) if bias is None else bias
    check_pair("weight", weight)
    check_pair("bias", bias)
    weight = (
        check_conv(x, weight[0], bias[0], activation, initial_state),
        check_conv(x, weight[1], bias[1], activation, None),
    )
    if weight[0].shape != weight[1].shape:
        raise ValueError(
            f"both directions must have one width; got {weight[0].shape[1]} and {weight[1].shape[1]}"
        )
    lengths = frame_counts(lengths, x)
    name = BACKENDS.prefer(x=x, weight=weight[0], bias=bias[0], initial_state=initial_state)
    convolve = BIDIRECTIONAL.get(name) or composed(BACKENDS[name])
    return convolve(x, weight, bias, activation, lengths=lengths, initial_state=initial_state)


def composed(convolve):
    """Both directions by two calls of ``convolve``."""

    def both(x, weight, bias, activation, *, lengths=None, initial_state=None):
        forward, last_state = convolve(
            x, weight[0], bias[0], activation, lengths=lengths, initial_state=initial_state
        )
        backward, _ = convolve(x, weight[1], bias[1], activation, lengths=lengths, reverse=True)
        return forward, backward, last_state

    return both
