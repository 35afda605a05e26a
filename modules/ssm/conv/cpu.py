"""The causal convolution's compiled CPU path as PyTorch operators with their gradients.

The arithmetic, in float32 whatever the tensors' dtype, is in ``modules/ssm/cpu/conv.c``. One direction,
and two at once, are one operator each; a call that nothing watches goes to the kernel directly.
"""

import torch
from torch import Tensor

from modules.ssm.cpu import refusal
from modules.ssm.cpu.conv_calls import Direction, backward, forward, gradients, results
from modules.ssm.cpu.tensors import in_forward_mode, needs_grad, takes, unwatched

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
    tensors = (x, weight, bias, initial_state)
    run = _runner(_Conv, conv_op, _forward, tensors)
    return run(*tensors, lengths, activation is not None, reverse, ahead)


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
    run = _runner(_BidirectionalConv, bidirectional_conv_op, _bidirectional, tensors)
    return run(*tensors, lengths, activation is not None)


def _runner(function, operator, kernel, tensors):
    """Who runs a call. The operator's own autograd layer costs 80 us, an autograd.Function 10, the operator
    without a gradient 30."""
    if not torch.compiler.is_compiling() and (needs_grad(*tensors) or in_forward_mode()):
        return function.apply
    return kernel if unwatched(*tensors) else operator


def _forward(x, weight, bias, initial_state, lengths, silu, reverse, ahead):
    return forward(x, [Direction(weight, bias, initial_state, reverse)], lengths, (silu, ahead))


@torch.library.custom_op("mamba_speech::causal_conv1d", mutates_args=())
def conv_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    reverse: bool,
    ahead: int,
) -> tuple[Tensor, Tensor]:
    """Output and last state."""
    return _forward(x, weight, bias, initial_state, lengths, silu, reverse, ahead)


@conv_op.register_fake
def _(x, weight, bias, initial_state, lengths, silu, reverse, ahead):
    return results(x, weight, 1)


def _backward(grad_out, grad_last, x, weight, bias, initial_state, lengths, silu, reverse, ahead):
    one = [Direction(weight, bias, initial_state, reverse)]
    grad_x, (grads,) = backward(x, one, lengths, (silu, ahead), [grad_out], grad_last)
    return [grad_x, *grads]


@torch.library.custom_op("mamba_speech::causal_conv1d_backward", mutates_args=())
def conv_backward_op(
    grad_out: Tensor,
    grad_last: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    reverse: bool,
    ahead: int,
) -> list[Tensor]:
    """Gradients of x, weight, bias and initial_state; empty for those not given."""
    rest = (x, weight, bias, initial_state, lengths, silu, reverse, ahead)
    return _backward(grad_out, grad_last, *rest)


@conv_backward_op.register_fake
def _(grad_out, grad_last, x, weight, bias, initial_state, lengths, silu, reverse, ahead):
    return gradients((x, weight, bias, initial_state))


def _both(weight, bias, weight_b, bias_b, initial_state):
    return [Direction(weight, bias, initial_state, False), Direction(weight_b, bias_b, None, True)]


def _bidirectional(x, weight, bias, weight_b, bias_b, initial_state, lengths, silu):
    directions = _both(weight, bias, weight_b, bias_b, initial_state)
    return forward(x, directions, lengths, (silu, 0))


@torch.library.custom_op("mamba_speech::bidirectional_conv1d", mutates_args=())
def bidirectional_conv_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_b: Tensor,
    bias_b: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both outputs and the forward direction's last state."""
    return _bidirectional(x, weight, bias, weight_b, bias_b, initial_state, lengths, silu)


@bidirectional_conv_op.register_fake
def _(x, weight, bias, weight_b, bias_b, initial_state, lengths, silu):
    return results(x, weight, 2)


def _bidirectional_backward(grad_y, grad_b, grad_last, x, *arguments):
    *tensors, lengths, silu = arguments
    directions = _both(*tensors)
    grad_x, (one, other) = backward(x, directions, lengths, (silu, 0), [grad_y, grad_b], grad_last)
    return [grad_x, *one[:2], *other[:2], one[2]]


@torch.library.custom_op("mamba_speech::bidirectional_conv1d_backward", mutates_args=())
def bidirectional_conv_backward_op(
    grad_y: Tensor,
    grad_b: Tensor,
    grad_last: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_b: Tensor,
    bias_b: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    """Gradients of the tensors from x to initial_state; empty for those not given."""
    tensors = (x, weight, bias, weight_b, bias_b, initial_state)
    return _bidirectional_backward(grad_y, grad_b, grad_last, *tensors, lengths, silu)


@bidirectional_conv_backward_op.register_fake
def _(grad_y, grad_b, grad_last, x, *tensors):
    return gradients((x, *tensors[:5]))


def _keep(ctx, inputs, output):
    """Remember a call: tensors and lengths, then the options."""
    tensors = [t for t in inputs if t is None or isinstance(t, Tensor)]
    ctx.options = inputs[len(tensors) :]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _gradient(ctx, grads, kernel, operator):
    *tensors, lengths = ctx.saved_tensors
    *grad_outs, grad_last = grads
    grad_outs = [torch.zeros_like(tensors[0]) if g is None else g for g in grad_outs]
    # with create_graph: the operator refuses a second derivative, the kernel would drop it
    direct = not torch.is_grad_enabled() and unwatched(*grad_outs, grad_last, *tensors)
    run = kernel if direct else operator
    made = run(*grad_outs, grad_last, *tensors, lengths, *ctx.options)
    wanted = (g if need else None for g, need in zip(made, ctx.needs_input_grad, strict=False))
    return *wanted, None, *[None] * len(ctx.options)


def _conv_gradient(ctx, *grads):
    return _gradient(ctx, grads, _backward, conv_backward_op)


def _bidirectional_gradient(ctx, *grads):
    return _gradient(ctx, grads, _bidirectional_backward, bidirectional_conv_backward_op)


conv_op.register_autograd(_conv_gradient, setup_context=_keep)
bidirectional_conv_op.register_autograd(_bidirectional_gradient, setup_context=_keep)


class _Conv(torch.autograd.Function):
    """One direction's gradient, for calls that do not go through the compiler."""

    @staticmethod
    def forward(*args):
        return (_forward if unwatched(*args[:4]) else conv_op)(*args)

    setup_context = staticmethod(_keep)
    backward = staticmethod(_conv_gradient)


class _BidirectionalConv(torch.autograd.Function):
    """Likewise for both directions."""

    @staticmethod
    def forward(*args):
        return (_bidirectional if unwatched(*args[:6]) else bidirectional_conv_op)(*args)

    setup_context = staticmethod(_keep)
    backward = staticmethod(_bidirectional_gradient)
