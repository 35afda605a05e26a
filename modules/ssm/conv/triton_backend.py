"""The causal convolution in Triton, one direction or both in one launch, as one PyTorch operator.

The kernels are in ``modules/ssm/triton/conv_forward.py`` and ``conv_backward.py``. Triton itself is imported at the
first launch.
"""

from typing import NamedTuple

import torch

from modules.ssm.operators import Operator
from modules.ssm.triton.refusal import device_refusal

_MAX_WIDTH = 64
# above it the gradient before the activation is computed once and stored, not anew for each tile
_MAX_FUSED_WIDTH = 8
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class ConvPlan(NamedTuple):
    """How a launch is cut up.

    A program of the forward kernel takes ``block`` channels and ``frames`` frames, all unrolled; one of the backward
    kernel ``grad_block`` channels and ``tiles`` times ``grad_frames`` rows, one after another, and leaves one
    partial sum of the weights' gradient. Both run on ``warps`` warps.
    """

    block: int
    frames: int
    grad_block: int
    grad_frames: int
    tiles: int
    warps: int


def conv_plan(channels, width):
    """The plan for a convolution, by reasoning alone: no card has timed it yet.

    A narrow convolution reads ``frames + width - 1`` rows for ``frames`` outputs, all of them in flight before the
    first is used, so 16 frames cost a fifth more reads, which the cache serves. Two channels a thread
    make 4-byte accesses in half precision. The backward kernel holds the rows, the gradients and the sums
    of both directions: with one channel a thread and 8 rows they fit the registers. A wide convolution
    takes one channel a thread throughout, and so few frames that Triton compiles it in seconds. 64 rows
    a program or more keep the partial sums' share of the traffic small.

    Arguments
    ---------
    channels, width : int

    Returns
    -------
    ConvPlan
    """
    narrow = width <= _MAX_FUSED_WIDTH
    unrolled = 8 if width <= 32 else 4
    whole = max(32, 1 << (max(channels, 1) - 1).bit_length())
    return ConvPlan(
        block=min(256 if narrow else 128, whole),
        frames=16 if narrow else unrolled,
        grad_block=min(128, whole),
        grad_frames=unrolled,
        tiles=64 // unrolled if narrow else 256 // unrolled,
        warps=min(4, whole // 32),
    )


def triton_refusal(x, weight, bias=None, initial_state=None):
    """Why these tensors cannot go to the Triton kernels, or ``None``."""
    reason = device_refusal(x.device)
    if reason is not None:
        return reason
    if any(t is not None and t.dtype not in _DTYPES for t in (x, weight, bias, initial_state)):
        return "the Triton kernels compute in float32 only"
    if weight.shape[1] > _MAX_WIDTH:
        return f"the Triton convolution is at most {_MAX_WIDTH} frames wide"
    return None


def causal_conv1d_triton(
    x,
    weight,
    bias=None,
    activation=None,
    *,
    lengths=None,
    reverse=False,
    initial_state=None,
    plan=None,
):
    """Causal convolution by the Triton kernels, called like :func:`causal_conv1d_naive`.

    Arguments
    ---------
    plan : ConvPlan, optional
        Other than :func:`conv_plan`'s.
    """
    silu, plan = activation is not None, _plan(plan, x, weight)
    if reverse:
        _, y, last = CONV((x, None, None, weight, bias, initial_state), lengths, silu, plan)
    else:
        y, _, last = CONV((x, weight, bias, None, None, initial_state), lengths, silu, plan)
    return y, last


def bidirectional_conv1d_triton(
    x, weight, bias, activation=None, *, lengths=None, initial_state=None, plan=None
):
    """Both directions over one ``x``, which is read once.

    Arguments
    ---------
    x : torch.Tensor
        (batch, time, channels).
    weight, bias : pairs of torch.Tensor
        (channels, width) and (channels,) or ``None``, for the forward and the backward direction.
    activation, lengths
        As in :func:`modules.ssm.causal_conv1d`.
    initial_state : torch.Tensor, optional
        (batch, channels, width), of the forward direction.
    plan : ConvPlan, optional

    Returns
    -------
    y_forward, y_backward : torch.Tensor
        (batch, time, channels).
    last_state : torch.Tensor
        (batch, channels, width), of the forward direction.
    """
    silu, plan = activation is not None, _plan(plan, x, weight[0])
    tensors = (x, weight[0], bias[0], weight[1], bias[1], initial_state)
    return CONV(tensors, lengths, silu, plan)


def _plan(plan, x, weight):
    return list(conv_plan(x.shape[2], weight.shape[1]) if plan is None else plan)


def _forward(*arguments):
    """Outputs of the forward and the backward direction, empty where it has no weight, and the last state."""
    *inputs, silu, plan = arguments
    x, outputs = inputs[0], _results(*inputs)
    if x.shape[0] and x.shape[2]:
        _launch_forward(_inputs(*inputs), outputs, (None, None), silu, ConvPlan(*plan))
    return outputs


def _results(x, weight_f, bias_f, weight_b, *others):
    batch, _, channels = x.shape
    width = (weight_b if weight_f is None else weight_f).shape[1]
    outputs = (x.new_empty(0 if w is None else x.shape) for w in (weight_f, weight_b))
    return *outputs, x.new_empty(batch, channels, width)


def _rows(x):
    """``x`` (batch, time, channels), copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _strided(x):
    """A tensor (batch, time, channels) and its strides over batch and time."""
    return (None, 0, 0) if x is None else (x, x.stride(0), x.stride(1))


def _inputs(x, weight_f, bias_f, weight_b, bias_b, initial_state, lengths):
    """The arguments that both kernels begin with."""
    return (
        *_strided(_rows(x)),
        *_weights(weight_f, bias_f),
        *_weights(weight_b, bias_b),
        None if initial_state is None else initial_state.contiguous(),
        None if lengths is None else lengths.contiguous(),
    )


def _weights(weight, bias):
    if weight is None:
        return None, 0, 0, None
    return weight, weight.stride(0), weight.stride(1), None if bias is None else bias.contiguous()


def _options(inputs, plan):
    """What both kernels are compiled for."""
    forward, backward = inputs[3], inputs[7]
    return {
        "WIDTH": (backward if forward is None else forward).shape[1],
        "FORWARD": forward is not None,
        "BACKWARD": backward is not None,
        "num_warps": plan.warps,
    }


def _launch_forward(inputs, outputs, grads, silu, plan):
    from modules.ssm.triton.conv_forward import conv_forward

    batch, time, channels = inputs[0].shape
    tiles = max(1, -(-time // plan.frames))
    out_f, out_b, last = outputs
    # Triton launches on the current device, whichever the tensors are on
    with torch.cuda.device_of(inputs[0]):
        conv_forward[(batch * tiles, -(-channels // plan.block))](
            *inputs,
            out_f,
            out_b,
            last,
            *_strided(grads[0]),
            *_strided(grads[1]),
            time,
            channels,
            tiles,
            FRAMES=plan.frames,
            BLOCK=plan.block,
            SILU=silu,
            **_options(inputs, plan),
        )


def _backward(grad_f, grad_b, grad_last, *arguments):
    """Gradients of x, of each weight and bias, and of initial_state; empty for those not given."""
    *tensors, lengths, silu, plan = arguments
    x, weight_f, bias_f, weight_b, bias_b, initial = tensors
    if not x.shape[0] or not x.shape[2]:
        return [x.new_empty(0) if t is None else torch.zeros_like(t) for t in tensors]
    plan = ConvPlan(*plan)
    inputs = _inputs(*tensors, lengths)
    grads = tuple(None if g is None else _rows(g) for g in (grad_f, grad_b))
    options = _options(inputs, plan)
    width = options["WIDTH"]
    if silu and width > _MAX_FUSED_WIDTH:
        wide = [None if g is None else g.new_empty(g.shape, dtype=torch.float32) for g in grads]
        _launch_forward(inputs, (*wide, None), grads, False, plan)
        grads, silu = wide, False

    from modules.ssm.triton.conv_backward import conv_backward

    batch, time, channels = x.shape
    grad_x = x.new_empty(x.shape)
    grad_initial = None if initial is None else initial.new_empty(initial.shape)
    rows = time + (0 if initial is None else width)
    groups = max(1, -(-rows // (plan.grad_frames * plan.tiles)))
    directions = options["FORWARD"] + options["BACKWARD"]
    partials = x.new_empty(batch * groups, directions, width + 1, channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        conv_backward[(batch * groups, -(-channels // plan.grad_block))](
            *inputs,
            *_strided(grads[0]),
            *_strided(grads[1]),
            None if grad_last is None else grad_last.contiguous(),
            grad_x,
            grad_initial,
            partials,
            time,
            channels,
            groups,
            FRAMES=plan.grad_frames,
            TILES=plan.tiles,
            BLOCK=plan.grad_block,
            SILU=silu,
            **options,
        )
    sums = iter(partials.sum(0).unbind(0))
    parts = [grad_x, *_split(sums, weight_f, bias_f), *_split(sums, weight_b, bias_b), grad_initial]
    return [
        x.new_empty(0) if t is None else g.to(t.dtype) for t, g in zip(tensors, parts, strict=True)
    ]


def _split(sums, weight, bias):
    """The gradients of a direction's weight and bias from its sum (width + 1, channels)."""
    if weight is None:
        return None, None
    total = next(sums)
    return total[:-1].t().contiguous(), None if bias is None else total[-1].clone()


CONV = Operator(
    "causal_conv1d_triton",
    "Tensor x, Tensor? weight_f, Tensor? bias_f, Tensor? weight_b, Tensor? bias_b, Tensor? initial_state",
    "bool silu, SymInt[] plan",
    outputs=3,
    forward=_forward,
    backward=_backward,
    results=_results,
    # a direction that the loss does not read still has its part in the launch
    given=lambda tensors: (tensors[1] is not None, tensors[3] is not None),
)
