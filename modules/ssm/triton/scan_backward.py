"""The backward pass of the Triton scan, from the end of a chunk of time to its start.

The forward pass kept the state every KEEP frames. Between two of them the states are computed again, a
tile of FRAMES at a time, and one state after another is followed forth and back over the tile: what
belongs to the frames stays in registers, what belongs to the states in a few rows that stay in cache.
"""

from modules.ssm.triton.language import jit, tl
from modules.ssm.triton.scan_common import (
    frame,
    halves,
    place,
    rows,
    sigmoid,
    span,
    step_size,
    together,
)


@jit
def _steps(us, deltas, shift, s, end, FRAMES: tl.constexpr, SOFTPLUS: tl.constexpr):
    """``dt`` and ``dt u`` of FRAMES successive steps."""
    dts, xs = (), ()
    for i in tl.static_range(FRAMES):
        dt = step_size(deltas[i], shift, s + i < end, SOFTPLUS)
        dts, xs = dts + (dt,), xs + (dt * us[i].to(tl.float32),)
    return dts, xs


@jit
def _advance(
    begin, after, A, pairs, dts, xs, channels, mask, N: tl.constexpr, FRAMES: tl.constexpr
):
    """All states over one tile, from the rows ``begin`` to the rows ``after``."""
    h_next = tl.load(begin, mask=mask, other=0.0)
    A_next = tl.load(A, mask=mask, other=0.0)
    pairs_next = _column(pairs, N, FRAMES)
    for n in tl.range(0, N, loop_unroll_factor=2):
        h, A2, pairs_n = h_next, A_next * 1.4426950408889634, pairs_next
        m = tl.minimum(n + 1, N - 1)
        h_next = tl.load(begin + m * channels, mask=mask, other=0.0)
        A_next = tl.load(A + m, mask=mask, other=0.0)
        pairs_next = _column(pairs + m, N, FRAMES)
        for i in tl.static_range(FRAMES):
            b, _c = halves(pairs_n[i])
            h = tl.exp2(dts[i] * A2) * h + xs[i] * b
        tl.store(after + n * channels, h, mask=mask)


@jit
def _column(pairs, N: tl.constexpr, FRAMES: tl.constexpr):
    """B and C of one state in FRAMES successive steps."""
    column = ()
    for i in tl.static_range(FRAMES):
        column = column + (tl.load(pairs + i * N),)
    return column


@jit
def _one_state(
    h,
    gh,
    gA,
    A,
    pairs,
    sums,
    dts,
    xs,
    dys,
    ys,
    gxs,
    gdts,
    N: tl.constexpr,
    FRAMES: tl.constexpr,
    GATED: tl.constexpr,
):
    """Follow one state forth and back over a tile.

    ``h`` is the state before the tile, ``gh`` the gradient of the one after it. Sums over states, one
    a frame, are returned with this state's share added: the output, the gradients of ``dt u`` and of
    ``dt``, the latter over log(2).
    """
    A2 = A * 1.4426950408889634
    decays, decayed, bs, cs, gcs, ys_more = (), (), (), (), (), ()
    for i in tl.static_range(FRAMES):
        b, c = halves(pairs[i])
        decay = tl.exp2(dts[i] * A2)
        part = decay * h
        h = part + xs[i] * b
        if GATED:
            ys_more = ys_more + (ys[i] + h * c,)
        else:
            ys_more = ys_more + (ys[i],)
        gcs = gcs + (tl.sum(dys[i] * h, axis=0),)
        decays, decayed = decays + (decay,), decayed + (part,)
        bs, cs = bs + (b,), cs + (c,)
    gbs, gxs_more, gdts_more = (), (), ()
    for i in tl.static_range(FRAMES - 1, -1, -1):
        gh = gh + cs[i] * dys[i]
        through = gh * decayed[i]
        gA += through * dts[i]
        gdts_more = (gdts[i] + through * A2,) + gdts_more
        gxs_more = (gxs[i] + gh * bs[i],) + gxs_more
        gbs = (tl.sum(gh * xs[i], axis=0),) + gbs
        gh = gh * decays[i]
    for i in tl.static_range(FRAMES):
        tl.store(sums + i * N, together(gbs[i], gcs[i]))
    return gh, gA, ys_more, gxs_more, gdts_more


@jit
def scan_backward(
    u0,
    u1,
    delta0,
    delta1,
    z,
    grad_out,
    A,
    pairs,
    D,
    bias,
    lengths,
    carries,
    saved,
    scratch,
    grad_u,
    grad_delta,
    grad_z,
    sums_A,
    sums_pairs,
    sums_D,
    sums_bias,
    batch,
    time,
    channels,
    chunk_frames,
    chunks,
    steps,
    u_b,
    u_t,
    delta_b,
    delta_t,
    z_b,
    z_t,
    grad_b,
    grad_t,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    FRAMES: tl.constexpr,
    KEEP: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):
    """Gradients of a chunk; ``rows`` below are (direction, batch).

    ``carries`` (rows, chunks, N, channels) begins as the gradient of the state after each chunk. It
    ends as the gradient of the state before the chunk. ``sums_A`` has the same shape and starts from
    zero. ``sums_D`` and ``sums_bias`` are (rows, chunks, channels), ``sums_pairs`` (rows, blocks of
    channels, steps, N), ``scratch`` (rows, chunks, KEEP / FRAMES - 1, N, channels), ``grad_u``,
    ``grad_delta``, ``grad_z`` (rows, time, channels).
    """
    blocks = tl.cdiv(channels, BLOCK)
    block, chunk, item, row, second, backward = place(blocks, chunks, batch, DIRECTIONS, REVERSE)
    channel = block * BLOCK + tl.arange(0, BLOCK)
    mask = channel < channels
    length, start, end = span(lengths, item, chunk, chunk_frames, time)
    u = tl.where(second == 0, u0, u1) + item * u_b + channel
    delta = tl.where(second == 0, delta0, delta1) + item * delta_b + channel
    grad_out += item * grad_b + channel
    parameter = second * channels + channel
    A += parameter * N
    shift = 0.0
    if bias is not None:
        shift = tl.load(bias + parameter, mask=mask, other=0.0)
    if D is not None:
        skip = tl.load(D + parameter, mask=mask, other=0.0)
    grad_u += row * time * channels + channel
    grad_delta += row * time * channels + channel
    if z is not None:
        z += item * z_b + channel
        grad_z += row * time * channels + channel
    pairs += row * steps * N
    sums_pairs += (row * blocks + block) * steps * N
    saved += row * (steps // KEEP) * N * channels + channel
    where = row * chunks + chunk
    carries += where * N * channels + channel
    sums_A += where * N * channels + channel
    if KEEP > FRAMES:
        scratch += where * (KEEP // FRAMES - 1) * N * channels + channel
    gD = tl.zeros_like(channel).to(tl.float32)
    gbias = tl.zeros_like(channel).to(tl.float32)

    groups = tl.cdiv(tl.maximum(end - start, 0), KEEP)
    for g in range(groups):
        first = start + (groups - 1 - g) * KEEP
        tiles = tl.cdiv(tl.minimum(KEEP, end - first), FRAMES)
        kept = saved + tl.cast(first // KEEP, tl.int64) * N * channels
        if KEEP > FRAMES:
            for j in range(tiles - 1):
                s = first + j * FRAMES
                us = rows(u, u_t, s, end, length, backward, mask, FRAMES)
                deltas = rows(delta, delta_t, s, end, length, backward, mask, FRAMES)
                dts, xs = _steps(us, deltas, shift, s, end, FRAMES, SOFTPLUS)
                begin = tl.where(j == 0, kept, scratch + (j - 1) * N * channels)
                after = scratch + j * N * channels
                tile_pairs = pairs + tl.cast(s, tl.int64) * N
                _advance(begin, after, A, tile_pairs, dts, xs, channels, mask, N, FRAMES)
                tl.debug_barrier()
        for k in range(tiles):
            j = tiles - 1 - k
            s = first + j * FRAMES
            begin = kept
            if KEEP > FRAMES:
                begin = tl.where(j == 0, kept, scratch + (j - 1) * N * channels)
            us = rows(u, u_t, s, end, length, backward, mask, FRAMES)
            deltas = rows(delta, delta_t, s, end, length, backward, mask, FRAMES)
            douts = rows(grad_out, grad_t, s, end, length, backward, mask, FRAMES)
            if z is not None:
                gates = rows(z, z_t, s, end, length, backward, mask, FRAMES)
            dts, xs = _steps(us, deltas, shift, s, end, FRAMES, SOFTPLUS)
            dys, ys = (), ()
            for i in tl.static_range(FRAMES):
                dy = tl.where(s + i < end, douts[i].to(tl.float32), 0.0)
                if z is not None:
                    gate = gates[i].to(tl.float32)
                    dy = dy * gate * sigmoid(gate)
                dys, ys = dys + (dy,), ys + (tl.zeros_like(dy),)
            gxs, gdts = ys, ys
            tile_pairs = pairs + tl.cast(s, tl.int64) * N
            tile_sums = sums_pairs + tl.cast(s, tl.int64) * N
            h_next = tl.load(begin, mask=mask, other=0.0)
            gh_next = tl.load(carries, mask=mask, other=0.0)
            gA_next = tl.load(sums_A, mask=mask, other=0.0)
            A_next = tl.load(A, mask=mask, other=0.0)
            pairs_next = _column(tile_pairs, N, FRAMES)
            for n in tl.range(0, N, loop_unroll_factor=2):
                h, gh, gA, A_n, pairs_n = h_next, gh_next, gA_next, A_next, pairs_next
                # the rows of the next state are on their way while this one is followed
                m = tl.minimum(n + 1, N - 1)
                h_next = tl.load(begin + m * channels, mask=mask, other=0.0)
                gh_next = tl.load(carries + m * channels, mask=mask, other=0.0)
                gA_next = tl.load(sums_A + m * channels, mask=mask, other=0.0)
                A_next = tl.load(A + m, mask=mask, other=0.0)
                pairs_next = _column(tile_pairs + m, N, FRAMES)
                gh, gA, ys, gxs, gdts = _one_state(
                    h,
                    gh,
                    gA,
                    A_n,
                    pairs_n,
                    tile_sums + n,
                    dts,
                    xs,
                    dys,
                    ys,
                    gxs,
                    gdts,
                    N,
                    FRAMES,
                    z is not None,
                )
                tl.store(carries + n * channels, gh, mask=mask)
                tl.store(sums_A + n * channels, gA, mask=mask)
            # the next tile reads them, perhaps by another thread
            tl.debug_barrier()
            for i in tl.static_range(FRAMES):
                t = frame(s + i, end, length, backward)
                valid = s + i < end
                u_i = us[i].to(tl.float32)
                gu = gxs[i] * dts[i]
                gdt = gdts[i] * 0.6931471805599453 + gxs[i] * u_i
                if D is not None:
                    gu += skip * dys[i]
                    gD += dys[i] * u_i
                if SOFTPLUS:
                    gdt *= sigmoid(deltas[i].to(tl.float32) + shift)
                gdt = tl.where(valid, gdt, 0.0)
                gbias += gdt
                tl.store(grad_u + t * channels, gu, mask=mask & valid)
                tl.store(grad_delta + t * channels, gdt, mask=mask & valid)
                if z is not None:
                    y = ys[i]
                    if D is not None:
                        y += skip * u_i
                    gate = gates[i].to(tl.float32)
                    opened = sigmoid(gate)
                    gz = douts[i].to(tl.float32) * y * opened * (1.0 + gate * (1.0 - opened))
                    tl.store(grad_z + t * channels, gz, mask=mask & valid)

    tl.store(sums_D + where * channels + channel, gD, mask=mask)
    tl.store(sums_bias + where * channels + channel, gbias, mask=mask)
    for s in range(tl.maximum(start, length), tl.minimum(start + chunk_frames, time)):
        padding = tl.cast(s, tl.int64) * channels
        nothing = tl.zeros_like(channel).to(tl.float32)
        tl.store(grad_u + padding, nothing, mask=mask)
        tl.store(grad_delta + padding, nothing, mask=mask)
        if z is not None:
            tl.store(grad_z + padding, nothing, mask=mask)
