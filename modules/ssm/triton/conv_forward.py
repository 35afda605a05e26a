"""The forward pass of the Triton convolution: one program takes a block of channels and some frames.

The same kernel gives the gradient before the activation, which the backward pass of a wide convolution reads.
"""

from __future__ import annotations

from modules.ssm.triton.conv_common import (
    load_bias,
    load_input,
    load_inputs,
    load_row,
    load_taps,
    pre_activation,
    sigmoid,
    silu_slope,
)
from modules.ssm.triton.counts import frame_count
from modules.ssm.triton.language import jit, tl


@jit
def _finish(
    out, grad_out, stride_grad, frame, length, time, channels, channel, keep, y, SILU: tl.constexpr
):
    """Write one frame of the output; or, given the output's gradient, of the gradient before the activation."""
    if grad_out is not None:
        y = load_row(grad_out, stride_grad, frame, length, channel, keep) * silu_slope(y)
    elif SILU:
        y = y * sigmoid(y)
    y = tl.where(frame < length, y, 0.0)
    address = out + tl.cast(frame, tl.int64) * channels + channel
    tl.store(address, y.to(out.dtype.element_ty), mask=keep & (frame < time))


@jit
def conv_forward(
    x,
    x_batch,
    x_time,
    weight_f,
    weight_f_channel,
    weight_f_tap,
    bias_f,
    weight_b,
    weight_b_channel,
    weight_b_tap,
    bias_b,
    initial,
    lengths,
    out_f,
    out_b,
    last,
    grad_f,
    grad_f_batch,
    grad_f_time,
    grad_b,
    grad_b_batch,
    grad_b_time,
    time,
    channels,
    tiles,
    WIDTH: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK: tl.constexpr,
    FORWARD: tl.constexpr,
    BACKWARD: tl.constexpr,
    SILU: tl.constexpr,
):
    """``FRAMES`` frames of the output, in each direction asked for.

    Grid: (batch * tiles, blocks of channels). Tensors (batch, time, channels) have unit stride over channels; those
    written, ``initial`` and ``last`` are contiguous. The states belong to the forward direction if there
    is one. With ``grad_f`` or ``grad_b`` the outputs are the gradients before the activation instead, and
    ``last`` is None.
    """
    item = tl.cast(tl.program_id(0) // tiles, tl.int64)
    tile = tl.program_id(0) % tiles
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    keep = channel < channels
    length = frame_count(lengths, item, time)
    x += item * x_batch
    if initial is not None:
        initial += item * channels * WIDTH
    first = tile * FRAMES

    before: tl.constexpr = WIDTH - 1 if FORWARD else 0
    after: tl.constexpr = WIDTH - 1 if BACKWARD else 0
    rows = load_inputs(
        x,
        x_time,
        initial,
        first - before,
        length,
        channel,
        keep,
        FRAMES + before + after,
        WIDTH,
        FORWARD,
    )
    if FORWARD:
        taps = load_taps(weight_f, weight_f_channel, weight_f_tap, channel, keep, WIDTH)
        out_f += item * time * channels
        if grad_f is not None:
            grad_f += item * grad_f_batch
        bias = load_bias(bias_f, channel, keep)
        for i in tl.static_range(FRAMES):
            y = pre_activation(rows, taps, bias, i, False, WIDTH)
            g, stride = grad_f, grad_f_time
            _finish(out_f, g, stride, first + i, length, time, channels, channel, keep, y, SILU)
    if BACKWARD:
        taps = load_taps(weight_b, weight_b_channel, weight_b_tap, channel, keep, WIDTH)
        out_b += item * time * channels
        if grad_b is not None:
            grad_b += item * grad_b_batch
        bias = load_bias(bias_b, channel, keep)
        for i in tl.static_range(FRAMES):
            y = pre_activation(rows, taps, bias, before + i, True, WIDTH)
            g, stride = grad_b, grad_b_time
            _finish(out_b, g, stride, first + i, length, time, channels, channel, keep, y, SILU)
    if last is not None and tile == 0:
        last += item * channels * WIDTH
        for k in tl.static_range(WIDTH):
            frame = length - WIDTH + k if FORWARD else WIDTH - 1 - k
            row = load_input(x, x_time, initial, frame, length, channel, keep, WIDTH, FORWARD)
            tl.store(last + channel * WIDTH + k, row.to(last.dtype.element_ty), mask=keep)
