"""The causal convolution's compiled CPU path as PyTorch operators with their gradients.

The arithmetic, in float32 whatever the tensors' dtype, is in ``modules/ssm/cpu/conv.c``. One direction,
and two at once, are one operator each; a call that nothing watches goes to the kernel directly.
"""

from modules.ssm.cpu import refusal
from modules.ssm.cpu.conv_calls import ConvDirection, backward, forward, results
from modules.ssm.cpu.tensors import takes
from modules.ssm.operators import Operator

# MAX_WIDTH in conv.c
_MAX_WIDTH = 64


def cpu_refusal(x, weight, bias=None, initial_state=None):
    """Why these tensors cannot go to the compiled CPU kernel, or ``None``."""
    if x.device.type != "cpu":
        return f"the compiled kernels run on the CPU, and the tensors are on {x.device.type}"
    if not takes(x, weight, bias, initial_state):
        return "the compiled kernels compute in float32 only"
    if weight.shape[1] > _MAX_WIDTH:
        return f"the compiled convolution is at most {_MAX_WIDTH} frames wide"
    return refusal()


def causal_conv1d_cpu(
    x,
    weight,
    bias=None,
    activation=None,
    *,
    lengths=None,
    reverse=False,
    initial_state=None,
    ahead=0,
):
    """Causal convolution by the compiled kernel, called like :func:`causal_conv1d_naive`.

    Arguments
    ---------
    x, weight, bias, activation, lengths, reverse, initial_state
        As for :func:`modules.ssm.causal_conv1d`.
    ahead : int
        Frames after its own that an output sees, 0 to width - 1, zeros at or past the utterance's length; an
        odd width and ``ahead=width // 2`` make the convolution symmetric. The last state does not depend on it.

    Raises
    ------
    ValueError
        If ``ahead`` is not within the width.
    RuntimeError
        If the kernels cannot be built here (:func:`cpu_refusal` says so beforehand).

    Example
    -------
    >>> import torch
    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> causal_conv1d_cpu(x, torch.tensor([[1.0, 10.0, 100.0]]), ahead=1)[0].flatten().tolist()
    [210.0, 321.0, 32.0]
    """
    if not 0 <= ahead < weight.shape[1]:
        raise ValueError(f"ahead must lie in 0..{weight.shape[1] - 1}, the width - 1; got {ahead}")
    return CONV((x, weight, bias, initial_state), lengths, activation is not None, reverse, ahead)


def bidirectional_conv1d_cpu(x, weight, bias, activation, *, lengths=None, initial_state=None):
    """A forward and a backward causal convolution of one input, in one call of the kernels.

    Arguments
    ---------
    x : torch.Tensor
        (batch, time, channels).
    weight, bias : tuple
        Pairs (forward, backward); ``bias`` may be ``None``, or hold it.
    activation : str, optional
        ``silu``, or ``None``.
    lengths : torch.Tensor, optional
        (batch,) integer frame counts.
    initial_state : torch.Tensor, optional
        (batch, channels, width), the forward direction's; the backward one starts from zeros.

    Returns
    -------
    (torch.Tensor, torch.Tensor, torch.Tensor)
        Both outputs (batch, time, channels), and the forward direction's last state.

    Raises
    ------
    ValueError
        If the two weights differ in width.
    RuntimeError
        If the kernels cannot be built here (:func:`cpu_refusal` says so beforehand).

    Example
    -------
    >>> import torch
    >>> x, weight = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[10.0, 1.0]])
    >>> ahead, back, _ = bidirectional_conv1d_cpu(x, (weight, weight), None, None)
    >>> ahead.flatten().tolist(), back.flatten().tolist()
    ([1.0, 12.0, 23.0], [21.0, 32.0, 3.0])
    """
    if weight[0].shape != weight[1].shape:
        raise ValueError(
            "both directions' weights must have one shape; got "
            f"{tuple(weight[0].shape)} and {tuple(weight[1].shape)}"
        )
    bias = (None, None) if bias is None else bias
    tensors = (x, weight[0], bias[0], weight[1], bias[1], initial_state)
    return BIDIRECTIONAL_CONV(tensors, lengths, activation is not None)


def _forward(x, weight, bias, initial_state, lengths, silu, reverse, ahead):
    return forward(x, [ConvDirection(weight, bias, initial_state, reverse)], lengths, (silu, ahead))


def _backward(grad_out, grad_last, x, weight, bias, initial_state, lengths, silu, reverse, ahead):
    one = [ConvDirection(weight, bias, initial_state, reverse)]
    grad_x, (grads,) = backward(x, one, lengths, (silu, ahead), [grad_out], grad_last)
    return [grad_x, *grads]


CONV = Operator(
    "causal_conv1d",
    "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state",
    "bool silu, bool reverse, SymInt ahead",
    outputs=2,
    forward=_forward,
    backward=_backward,
    results=lambda x, weight, *others: results(x, weight, 1),
    direct=True,
)


def _directions(weight, bias, weight_b, bias_b, initial_state):
    return [
        ConvDirection(weight, bias, initial_state, False),
        ConvDirection(weight_b, bias_b, None, True),
    ]


def _bidirectional(x, *arguments):
    *tensors, lengths, silu = arguments
    return forward(x, _directions(*tensors), lengths, (silu, 0))


def _bidirectional_backward(grad_y, grad_b, grad_last, x, *arguments):
    *tensors, lengths, silu = arguments
    directions = _directions(*tensors)
    grad_x, (one, other) = backward(x, directions, lengths, (silu, 0), [grad_y, grad_b], grad_last)
    return [grad_x, *one[:2], *other[:2], one[2]]


BIDIRECTIONAL_CONV = Operator(
    "bidirectional_conv1d",
    "Tensor x, Tensor weight, Tensor? bias, Tensor weight_b, Tensor? bias_b, Tensor? initial_state",
    "bool silu",
    outputs=3,
    forward=_bidirectional,
    backward=_bidirectional_backward,
    results=lambda x, weight, *others: results(x, weight, 2),
    direct=True,
)
