"""The forward pass of the Triton scan: one program takes a block of channels through a chunk of time.

A thread holds all states of its one or two channels in registers, so that the sum over states needs no
communication; B and C are the same for all channels and read as pairs (``scan_pairs.py``).
"""

from modules.ssm.triton.language import jit, tl
from modules.ssm.triton.scan_common import (
    boundary,
    frame,
    halves,
    keep_states,
    per_state,
    place,
    rows,
    sigmoid,
    span,
    step_size,
)


@jit
def scan_forward(
    u0,
    u1,
    delta0,
    delta1,
    z,
    A,
    pairs,
    D,
    bias,
    lengths,
    initial,
    starts,
    out,
    last,
    saved,
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
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    FRAMES: tl.constexpr,
    KEEP: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):
    """Outputs of a chunk, the state after the utterance, and the states every KEEP frames.

    ``out`` is (direction, batch, time, channels), ``last`` (direction, batch, channels, N), ``saved``
    (direction, batch, steps / KEEP, N, channels) or ``None``, where ``steps`` is ``time`` rounded up to a
    multiple of KEEP.
    """
    block, chunk, item, row, second, backward = place(
        tl.cdiv(channels, BLOCK), chunks, batch, DIRECTIONS, REVERSE
    )
    channel = block * BLOCK + tl.arange(0, BLOCK)
    mask = channel < channels
    length, start, end = span(lengths, item, chunk, chunk_frames, time)
    u = tl.where(second == 0, u0, u1) + item * u_b + channel
    delta = tl.where(second == 0, delta0, delta1) + item * delta_b + channel
    parameter = second * channels + channel
    A2 = per_state(A + parameter * N, 1, mask, 1.4426950408889634, N)
    if bias is not None:
        shift = tl.load(bias + parameter, mask=mask, other=0.0)
    else:
        shift = 0.0
    if D is not None:
        skip = tl.load(D + parameter, mask=mask, other=0.0)
    pairs += row * steps * N
    out += row * time * channels + channel
    where = row * chunks + chunk
    h = boundary(starts, initial, where, row, item, channel, mask, channels, second, N)
    if z is not None:
        z += item * z_b + channel
        z_next = rows(z, z_t, start, end, length, backward, mask, FRAMES)
    u_next = rows(u, u_t, start, end, length, backward, mask, FRAMES)
    delta_next = rows(delta, delta_t, start, end, length, backward, mask, FRAMES)
    if saved is not None:
        saved += row * (steps // KEEP) * N * channels + channel

    for s in range(start, end, FRAMES):
        u_now, delta_now = u_next, delta_next
        # the rows of the next round are on their way while this one is computed
        u_next = rows(u, u_t, s + FRAMES, end, length, backward, mask, FRAMES)
        delta_next = rows(delta, delta_t, s + FRAMES, end, length, backward, mask, FRAMES)
        if z is not None:
            z_now = z_next
            z_next = rows(z, z_t, s + FRAMES, end, length, backward, mask, FRAMES)
        if saved is not None:  # noqa: SIM102 (one is known when compiling, the other when running)
            if s % KEEP == 0:
                slot = tl.cast(s // KEEP, tl.int64)
                keep_states(saved + slot * N * channels, channels, mask, h, N)
        step_pairs = pairs + tl.cast(s, tl.int64) * N
        ys = ()
        for i in tl.static_range(FRAMES):
            dt = step_size(delta_now[i], shift, s + i < end, SOFTPLUS)
            u_i = u_now[i].to(tl.float32)
            x = dt * u_i
            if D is not None:
                y = skip * u_i
            else:
                y = tl.zeros_like(x)
            after = ()
            for n in tl.static_range(N):
                b, c = halves(tl.load(step_pairs + (i * N + n)))
                state = tl.exp2(dt * A2[n]) * h[n] + x * b
                y += state * c
                after = after + (state,)
            h = after
            if z is not None:
                gate = z_now[i].to(tl.float32)
                y = y * gate * sigmoid(gate)
            ys = ys + (y,)
        for i in tl.static_range(FRAMES):
            row_out = out + frame(s + i, end, length, backward) * channels
            tl.store(row_out, ys[i], mask=mask & (s + i < end))

    if (end == length) & (start < length) | ((length == 0) & (chunk == 0)):
        keep_states(last + (row * channels + channel) * N, 1, mask, h, N)
    for s in range(tl.maximum(start, length), tl.minimum(start + chunk_frames, time)):
        padding = tl.cast(s, tl.int64) * channels
        tl.store(out + padding, tl.zeros_like(channel).to(tl.float32), mask=mask)
