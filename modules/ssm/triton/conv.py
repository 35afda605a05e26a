"""Triton kernels of the causal depthwise convolution: one program takes a block of channels and some frames.

Rows of the input, one vector of channels each, are read once and kept in registers; every tap and both
directions read them there. All arithmetic is in float32, and the weights' gradients leave as one
partial sum a program, so that nothing depends on the order in which programs run.
"""

from __future__ import annotations

from modules.ssm.triton.language import jit, tl


@jit
def _zero(channel):
    """A zero a channel. (Triton's own zeros_like and sigmoid cannot be called from interpreted kernels.)"""
    return (channel * 0).to(tl.float32)


@jit
def _sigmoid(y):
    return 1 / (1 + tl.exp(-y))


@jit
def _taps(weight, stride_channel, stride_tap, channel, keep, WIDTH: tl.constexpr):
    """The weight of every tap."""
    taps = ()
    for k in tl.static_range(WIDTH):
        tap = tl.load(weight + channel * stride_channel + k * stride_tap, mask=keep, other=0.0)
        taps = taps + (tap.to(tl.float32),)
    return taps


@jit
def _bias(bias, channel, keep):
    if bias is None:
        return _zero(channel)
    else:
        return tl.load(bias + channel, mask=keep, other=0.0).to(tl.float32)


@jit
def _row(x, stride, frame, length, channel, keep):
    """One frame of an utterance, zeros outside it."""
    inside = (frame >= 0) & (frame < length)
    row = tl.load(x + tl.cast(frame, tl.int64) * stride + channel, mask=keep & inside, other=0.0)
    return row.to(tl.float32)


@jit
def _column(frame, length, WIDTH: tl.constexpr, FORWARD: tl.constexpr):
    """Where a frame before the first one processed stands in the initial state; outside 0..WIDTH - 1 for others."""
    if FORWARD:
        return WIDTH + frame
    else:
        return WIDTH - 1 + length - frame


@jit
def _input(
    x, stride, initial, frame, length, channel, keep, WIDTH: tl.constexpr, FORWARD: tl.constexpr
):
    """One frame of an utterance, or of what was before it."""
    row = _row(x, stride, frame, length, channel, keep)
    if initial is not None:
        column = _column(frame, length, WIDTH, FORWARD)
        # without a length of its own, frame >= length means what was before when running backwards
        before = (frame < 0) if FORWARD else (frame >= length)
        given = keep & before & (column >= 0) & (column < WIDTH)
        row += tl.load(initial + channel * WIDTH + column, mask=given, other=0.0).to(tl.float32)
    return row


@jit
def _inputs(
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
    rows = ()
    for i in tl.static_range(COUNT):
        rows = rows + (
            _input(x, stride, initial, first + i, length, channel, keep, WIDTH, FORWARD),
        )
    return rows


@jit
def _pre(rows, taps, bias, FIRST: tl.constexpr, REVERSE: tl.constexpr, WIDTH: tl.constexpr):
    """The sum over taps of the rows from ``FIRST`` on; the newest tap meets the last of them, or the first."""
    y = bias
    for k in tl.static_range(WIDTH):
        if REVERSE:
            y += taps[k] * rows[FIRST + WIDTH - 1 - k]
        else:
            y += taps[k] * rows[FIRST + k]
    return y


@jit
def _silu_slope(y):
    sigmoid = _sigmoid(y)
    return sigmoid * (1 + y * (1 - sigmoid))


@jit
def _finish(
    out, grad_out, stride_grad, frame, length, time, channels, channel, keep, y, SILU: tl.constexpr
):
    """Write one frame of the output; or, given the output's gradient, of the gradient before the activation."""
    if grad_out is not None:
        y = _row(grad_out, stride_grad, frame, length, channel, keep) * _silu_slope(y)
    elif SILU:
        y = y * _sigmoid(y)
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
    length = time
    if lengths is not None:
        length = tl.load(lengths + item).to(tl.int32)
    x += item * x_batch
    if initial is not None:
        initial += item * channels * WIDTH
    first = tile * FRAMES

    before: tl.constexpr = WIDTH - 1 if FORWARD else 0
    after: tl.constexpr = WIDTH - 1 if BACKWARD else 0
    rows = _inputs(
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
        taps = _taps(weight_f, weight_f_channel, weight_f_tap, channel, keep, WIDTH)
        out_f += item * time * channels
        if grad_f is not None:
            grad_f += item * grad_f_batch
        bias = _bias(bias_f, channel, keep)
        for i in tl.static_range(FRAMES):
            y = _pre(rows, taps, bias, i, False, WIDTH)
            g, stride = grad_f, grad_f_time
            _finish(out_f, g, stride, first + i, length, time, channels, channel, keep, y, SILU)
    if BACKWARD:
        taps = _taps(weight_b, weight_b_channel, weight_b_tap, channel, keep, WIDTH)
        out_b += item * time * channels
        if grad_b is not None:
            grad_b += item * grad_b_batch
        bias = _bias(bias_b, channel, keep)
        for i in tl.static_range(FRAMES):
            y = _pre(rows, taps, bias, before + i, True, WIDTH)
            g, stride = grad_b, grad_b_time
            _finish(out_b, g, stride, first + i, length, time, channels, channel, keep, y, SILU)
    if last is not None and tile == 0:
        last += item * channels * WIDTH
        for k in tl.static_range(WIDTH):
            frame = length - WIDTH + k if FORWARD else WIDTH - 1 - k
            row = _input(x, x_time, initial, frame, length, channel, keep, WIDTH, FORWARD)
            tl.store(last + channel * WIDTH + k, row.to(last.dtype.element_ty), mask=keep)


@jit
def _zeros(channel, COUNT: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(COUNT):
        zeros = zeros + (_zero(channel),)
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
        g = _row(grad, stride, first + j, length, channel, keep)
        if SILU:
            g = g * _silu_slope(_pre(rows, taps, bias, j, REVERSE, WIDTH))
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
    column = _column(frame, length, WIDTH, FORWARD)
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
    length = time
    if lengths is not None:
        length = tl.load(lengths + item).to(tl.int32)
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
        taps_f = _taps(weight_f, weight_f_channel, weight_f_tap, channel, keep, WIDTH)
        shift_f = _bias(bias_f, channel, keep)
        sums_f = _zeros(channel, WIDTH + 1)
        grad_f += item * grad_f_batch
    if BACKWARD:
        taps_b = _taps(weight_b, weight_b_channel, weight_b_tap, channel, keep, WIDTH)
        shift_b = _bias(bias_b, channel, keep)
        sums_b = _zeros(channel, WIDTH + 1)
        grad_b += item * grad_b_batch
    for tile in range(TILES):
        first = start + tile * FRAMES
        rows = _inputs(
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
            row = _zero(channel)
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
