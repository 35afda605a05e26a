"""The backward pass of the Triton convolution: the gradients of the input, the weights and the initial state.

The weights' gradients leave as one partial sum a program, so that nothing depends on the order of the programs.
"""

from __future__ import annotations

from modules.ssm.triton.conv_common import (
    column_of,
    load_bias,
    load_inputs,
    load_row,
    load_taps,
    pre_activation,
    silu_slope,
    zero,
)
from modules.ssm.triton.counts import frame_count
from modules.ssm.triton.language import jit, tl


@jit
def _zeros(channel, COUNT: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(COUNT):
        zeros = zeros + (zero(channel),)
    return zeros


@jit
def _gradients(
    grad,
    stride,
    rows,
    taps,
    bias,
    first,
    length,
    channel,
    keep,
    FRAMES: tl.constexpr,
    WIDTH: tl.constexpr,
    REVERSE: tl.constexpr,
    SILU: tl.constexpr,
):
    """The gradient before the activation of every frame that reads one of the tile's rows."""
    gradients = ()
    for j in tl.static_range(FRAMES + WIDTH - 1):
        g = load_row(grad, stride, first + j, length, channel, keep)
        if SILU:
            g = g * silu_slope(pre_activation(rows, taps, bias, j, REVERSE, WIDTH))
        gradients = gradients + (g,)
    return gradients


@jit
def _grad_input(g, taps, i: tl.constexpr, REVERSE: tl.constexpr, WIDTH: tl.constexpr):
    """What row ``i`` of the tile receives from the frames that read it."""
    total = taps[0] * g[i if REVERSE else i + WIDTH - 1]
    for k in tl.static_range(1, WIDTH):
        total += taps[k] * g[i + k if REVERSE else i + WIDTH - 1 - k]
    return total


@jit
def _add_weights(sums, g, rows, FRAMES: tl.constexpr, WIDTH: tl.constexpr, REVERSE: tl.constexpr):
    """The sums of the weights' and, last, of the bias's gradient, with this tile's frames added."""
    new = ()
    for k in tl.static_range(WIDTH):
        total = sums[k]
        for i in tl.static_range(FRAMES):
            if REVERSE:
                total += g[WIDTH - 1 + i] * rows[2 * (WIDTH - 1) + i - k]
            else:
                total += g[i] * rows[i + k]
        new = new + (total,)
    total = sums[WIDTH]
    for i in tl.static_range(FRAMES):
        total += g[WIDTH - 1 + i if REVERSE else i]
    return new + (total,)


@jit
def _store_sums(partial, sums, channels, channel, keep, WIDTH: tl.constexpr):
    for k in tl.static_range(WIDTH + 1):
        tl.store(partial + k * channels + channel, sums[k], mask=keep)


@jit
def _store_grad_row(
    grad_x,
    grad_initial,
    grad_last,
    row,
    frame,
    length,
    time,
    channels,
    channel,
    keep,
    WIDTH: tl.constexpr,
    FORWARD: tl.constexpr,
):
    """Write the gradient of one row: of a frame, or of a column of the initial state."""
    column = column_of(frame, length, WIDTH, FORWARD)
    before = (frame < 0) if FORWARD else (frame >= length)
    if grad_last is not None:
        # the last WIDTH rows processed are the last state: WIDTH - 1 is the newest
        place = frame - length + WIDTH if FORWARD else WIDTH - 1 - frame
        given = keep & (place >= 0) & (place < WIDTH) & (column >= 0)
        row += tl.load(grad_last + channel * WIDTH + place, mask=given, other=0.0).to(tl.float32)
    inside = (frame >= 0) & (frame < time)
    tl.store(
        grad_x + tl.cast(frame, tl.int64) * channels + channel,
        tl.where(frame < length, row, 0.0).to(grad_x.dtype.element_ty),
        mask=keep & inside,
    )
    if grad_initial is not None:
        given = keep & before & (column >= 0) & (column < WIDTH)
        tl.store(
            grad_initial + channel * WIDTH + column,
            row.to(grad_initial.dtype.element_ty),
            mask=given,
        )


@jit
def conv_backward(
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
    grad_f,
    grad_f_batch,
    grad_f_time,
    grad_b,
    grad_b_batch,
    grad_b_time,
    grad_last,
    grad_x,
    grad_initial,
    partials,
    time,
    channels,
    groups,
    WIDTH: tl.constexpr,
    FRAMES: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    FORWARD: tl.constexpr,
    BACKWARD: tl.constexpr,
    SILU: tl.constexpr,
):
    """Gradients of ``TILES`` times ``FRAMES`` rows, and these rows' part of the weights' gradients.

    Grid: (batch * groups, blocks of channels). Rows are frames, and with an initial state the ``WIDTH`` columns of it
    as well, before frame 0 or, running backwards alone, behind the last frame. ``partials`` is
    (batch * groups, directions, WIDTH + 1, channels) float32, the bias last.
    """
    item = tl.cast(tl.program_id(0) // groups, tl.int64)
    group = tl.program_id(0) % groups
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    keep = channel < channels
    length = frame_count(lengths, item, time)
    x += item * x_batch
    grad_x += item * time * channels
    start = group * (TILES * FRAMES)
    if initial is not None:
        initial += item * channels * WIDTH
        grad_initial += item * channels * WIDTH
        if FORWARD:
            start -= WIDTH
    if grad_last is not None:
        grad_last += item * channels * WIDTH
    partials += tl.cast(tl.program_id(0), tl.int64) * (FORWARD + BACKWARD) * (WIDTH + 1) * channels

    if FORWARD:
        taps_f = load_taps(weight_f, weight_f_channel, weight_f_tap, channel, keep, WIDTH)
        shift_f = load_bias(bias_f, channel, keep)
        sums_f = _zeros(channel, WIDTH + 1)
        grad_f += item * grad_f_batch
    if BACKWARD:
        taps_b = load_taps(weight_b, weight_b_channel, weight_b_tap, channel, keep, WIDTH)
        shift_b = load_bias(bias_b, channel, keep)
        sums_b = _zeros(channel, WIDTH + 1)
        grad_b += item * grad_b_batch
    for tile in range(TILES):
        first = start + tile * FRAMES
        rows = load_inputs(
            x,
            x_time,
            initial,
            first - (WIDTH - 1),
            length,
            channel,
            keep,
            FRAMES + 2 * (WIDTH - 1),
            WIDTH,
            FORWARD,
        )
        if FORWARD:
            g_f = _gradients(
                grad_f,
                grad_f_time,
                rows,
                taps_f,
                shift_f,
                first,
                length,
                channel,
                keep,
                FRAMES,
                WIDTH,
                False,
                SILU,
            )
            sums_f = _add_weights(sums_f, g_f, rows, FRAMES, WIDTH, False)
        if BACKWARD:
            g_b = _gradients(
                grad_b,
                grad_b_time,
                rows,
                taps_b,
                shift_b,
                first - (WIDTH - 1),
                length,
                channel,
                keep,
                FRAMES,
                WIDTH,
                True,
                SILU,
            )
            sums_b = _add_weights(sums_b, g_b, rows, FRAMES, WIDTH, True)
        for i in tl.static_range(FRAMES):
            row = zero(channel)
            if FORWARD:
                row += _grad_input(g_f, taps_f, i, False, WIDTH)
            if BACKWARD:
                row += _grad_input(g_b, taps_b, i, True, WIDTH)
            _store_grad_row(
                grad_x,
                grad_initial,
                grad_last,
                row,
                first + i,
                length,
                time,
                channels,
                channel,
                keep,
                WIDTH,
                FORWARD,
            )
    if FORWARD:
        _store_sums(partials, sums_f, channels, channel, keep, WIDTH)
        partials += (WIDTH + 1) * channels
    if BACKWARD:
        _store_sums(partials, sums_b, channels, channel, keep, WIDTH)
