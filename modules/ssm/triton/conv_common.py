"""What both passes of the Triton convolution share: taps, rows of the input, the sum before the activation.

A program reads each row of the input, one vector of channels, once and keeps it in registers. Every tap and both
directions read the row there. All arithmetic is in float32.
"""

from __future__ import annotations

from modules.ssm.triton.language import jit, tl


@jit
def zero(channel):
    """A zero a channel. (Triton's own zeros_like and sigmoid cannot be called from interpreted kernels.)"""
    return (channel * 0).to(tl.float32)


@jit
def sigmoid(y):
    """``1 / (1 + exp(-y))``."""
    return 1 / (1 + tl.exp(-y))


@jit
def load_taps(weight, stride_channel, stride_tap, channel, keep, WIDTH: tl.constexpr):
    """The weight of every tap."""
    taps = ()
    for k in tl.static_range(WIDTH):
        tap = tl.load(weight + channel * stride_channel + k * stride_tap, mask=keep, other=0.0)
        taps = taps + (tap.to(tl.float32),)
    return taps


@jit
def load_bias(bias, channel, keep):
    """The bias of each channel, zeros without one."""
    if bias is None:
        return zero(channel)
    else:
        return tl.load(bias + channel, mask=keep, other=0.0).to(tl.float32)


@jit
def load_row(x, stride, frame, length, channel, keep):
    """One frame of an utterance, zeros outside it."""
    inside = (frame >= 0) & (frame < length)
    row = tl.load(x + tl.cast(frame, tl.int64) * stride + channel, mask=keep & inside, other=0.0)
    return row.to(tl.float32)


@jit
def column_of(frame, length, WIDTH: tl.constexpr, FORWARD: tl.constexpr):
    """Where a frame before the first one processed stands in the initial state; outside 0..WIDTH - 1 for others."""
    if FORWARD:
        return WIDTH + frame
    else:
        return WIDTH - 1 + length - frame


@jit
def load_input(
    x, stride, initial, frame, length, channel, keep, WIDTH: tl.constexpr, FORWARD: tl.constexpr
):
    """One frame of an utterance, or of what was before it."""
    row = load_row(x, stride, frame, length, channel, keep)
    if initial is not None:
        column = column_of(frame, length, WIDTH, FORWARD)
        # without a length of its own, frame >= length means what was before when running backwards
        before = (frame < 0) if FORWARD else (frame >= length)
        given = keep & before & (column >= 0) & (column < WIDTH)
        row += tl.load(initial + channel * WIDTH + column, mask=given, other=0.0).to(tl.float32)
    return row


@jit
def load_inputs(
    x,
    stride,
    initial,
    first,
    length,
    channel,
    keep,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    FORWARD: tl.constexpr,
):
    """``COUNT`` frames from ``first`` on, each as :func:`load_input` gives it."""
    rows = ()
    for i in tl.static_range(COUNT):
        rows = rows + (
            load_input(x, stride, initial, first + i, length, channel, keep, WIDTH, FORWARD),
        )
    return rows


@jit
def pre_activation(
    rows, taps, bias, FIRST: tl.constexpr, REVERSE: tl.constexpr, WIDTH: tl.constexpr
):
    """The sum over taps of the rows from ``FIRST`` on; the newest tap meets the last of them, or the first."""
    y = bias
    for k in tl.static_range(WIDTH):
        if REVERSE:
            y += taps[k] * rows[FIRST + WIDTH - 1 - k]
        else:
            y += taps[k] * rows[FIRST + k]
    return y


@jit
def silu_slope(y):
    """The derivative of SiLU."""
    s = sigmoid(y)
    return s * (1 + y * (1 - s))
