"""The causal convolution's compiled CPU path as one PyTorch operator with its gradient.

The arithmetic, in float32 whatever the tensors' dtype, is in ``modules/ssm/cpu/conv.c``.
"""

import torch
from torch import Tensor

from modules.ssm.cpu import refusal
from modules.ssm.cpu.tensors import (
    address,
    call,
    floats,
    frames,
    has_float16,
    needs_grad,
    rows,
    takes,
    view,
)

# MAX_WIDTH in conv.c
_MAX_WIDTH = 64


def cpu_refusal(x, weight, bias=None, initial_state=None):
    """Why these tensors can not go to the compiled CPU kernel, or ``None``."""
    if x.device.type != "cpu":
        return f"the compiled kernels run on the CPU, and the tensors are on {x.device.type}"
    if not takes(x, weight, bias, initial_state):
        return "the compiled kernels compute in float32 only"
    if weight.shape[1] > _MAX_WIDTH:
        return f"the compiled convolution is at most {_MAX_WIDTH} frames wide"
    reason = refusal()
    if reason is None and x.dtype == torch.float16 and not has_float16():
        return "the compiled kernels know no float16 on this processor"
    return reason


def causal_conv1d_cpu(
    x, weight, bias=None, activation=None, *, lengths=None, reverse=False, initial_state=None
):
    """Causal convolution by the compiled kernel, called like :func:`causal_conv1d_naive`.

    Raises
    ------
    RuntimeError
        If the kernels can not be built here (:func:`cpu_refusal` says so beforehand).
    """
    tensors = (x, weight, bias, initial_state)
    grad = needs_grad(*tensors)
    # the operator's own autograd layer costs 80 us a call, an autograd.Function 10
    run = _Conv.apply if grad and not torch.compiler.is_compiling() else conv_op
    return run(*tensors, lengths, activation is not None, reverse)


@torch.library.custom_op("mamba_speech::causal_conv1d", mutates_args=())
def conv_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Output and last state."""
    out, last = _results(x, weight)
    inputs = _Inputs(x, weight, bias, initial_state, lengths)
    # the kernel writes the state in float32
    state = last.float()
    call("conv_forward", *inputs.numbers(out, silu, reverse), address(state))
    return out, state.to(last.dtype)


@conv_op.register_fake
def _(x, weight, bias, initial_state, lengths, silu, reverse):
    return _results(x, weight)


def _results(x, weight):
    batch, _, channels = x.shape
    return x.new_empty(x.shape), x.new_empty(batch, channels, weight.shape[1])


class _Inputs:
    """The inputs as the kernel reads them, kept alive while their addresses are in use."""

    def __init__(self, x, weight, bias, initial_state, lengths):
        self.x, self.weight, self.bias = rows(x), floats(weight), floats(bias)
        self.initial, self.lengths = floats(initial_state), frames(lengths)

    def numbers(self, out, silu, reverse):
        """The members of ``conv_args`` up to ``initial``."""
        return (
            *self.x.shape,
            self.weight.shape[1],
            silu,
            reverse,
            torch.get_num_threads(),
            address(self.lengths),
            *view(self.x),
            *view(out),
            address(self.weight),
            address(self.bias),
            address(self.initial),
        )


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
) -> list[Tensor]:
    """Gradients of x, weight, bias and initial_state; empty for those not given."""
    tensors = (x, weight, bias, initial_state)
    inputs = _Inputs(*tensors, lengths)
    grad_out, grad_last = rows(grad_out), floats(grad_last)
    grads = _gradients(tensors)
    # all but that of x are computed in float32
    wide = [
        grads[0],
        *(None if t is None else g.float() for t, g in zip(tensors[1:], grads[1:], strict=True)),
    ]
    batch, _, channels = x.shape
    sums = torch.empty(batch, channels, weight.shape[1] + 1)
    call(
        "conv_backward",
        *inputs.numbers(None, silu, reverse),
        0,
        *view(grad_out),
        *view(wide[0]),
        address(grad_last),
        *map(address, wide[1:]),
        address(sums),
    )
    return [g if w is None else w.to(g.dtype) for g, w in zip(grads, wide, strict=True)]


@conv_backward_op.register_fake
def _(grad_out, grad_last, x, weight, bias, initial_state, lengths, silu, reverse):
    return _gradients((x, weight, bias, initial_state))


def _gradients(tensors):
    """Empty contiguous tensors for the gradients."""
    x = tensors[0]
    return [x.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors]


class _Conv(torch.autograd.Function):
    """The operator's gradient, for calls that do not go through the compiler."""

    @staticmethod
    def forward(*args):
        return conv_op(*args)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx, *grads):
        return _gradient(ctx, *grads)


def _keep(ctx, inputs, output):
    *tensors, ctx.silu, ctx.reverse = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _gradient(ctx, grad_out, grad_last):
    *tensors, lengths = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    grads = conv_backward_op(grad_out, grad_last, *tensors, lengths, ctx.silu, ctx.reverse)
    wanted = (g if need else None for g, need in zip(grads, ctx.needs_input_grad, strict=False))
    return *wanted, None, None, None


conv_op.register_autograd(_gradient, setup_context=_keep)
