"""How the Triton scan runs in parallel over time: what each chunk adds, and what each begins with.

Over a chunk the state changes by ``h -> exp(A S) h + v``, where S is the sum of the steps and v the
state that the chunk reaches from zero; the gradient of the state changes likewise, from the end to the
start. One kernel a direction finds v and S of every chunk, and a third one follows the chunks in order.
"""

from modules.ssm.triton.language import jit, tl
from modules.ssm.triton.scan_common import (
    frame,
    halves,
    keep_states,
    per_state,
    place,
    sigmoid,
    span,
    step_size,
)


@jit
def _zeros(channel, N: tl.constexpr):
    values = ()
    for _n in tl.static_range(N):
        values = values + (tl.zeros_like(channel).to(tl.float32),)
    return values


@jit
def chunk_states(
    u0,
    u1,
    delta0,
    delta1,
    A,
    pairs,
    bias,
    lengths,
    values,
    sums,
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
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    FRAMES: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):
    """``values`` (direction, batch, chunks, N, channels) and ``sums``, the same without N."""
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
    shift = 0.0
    if bias is not None:
        shift = tl.load(bias + parameter, mask=mask, other=0.0)
    pairs += row * steps * N
    h = _zeros(channel, N)
    total = tl.zeros_like(channel).to(tl.float32)
    for s in range(start, end, FRAMES):
        step_pairs = pairs + tl.cast(s, tl.int64) * N
        dts, xs = (), ()
        for i in tl.static_range(FRAMES):
            t = frame(s + i, end, length, backward)
            raw = tl.load(delta + t * delta_t, mask=mask, other=0.0)
            dt = step_size(raw, shift, s + i < end, SOFTPLUS)
            u_i = tl.load(u + t * u_t, mask=mask, other=0.0).to(tl.float32)
            dts, xs = dts + (dt,), xs + (dt * u_i,)
            total += dt
        for i in tl.static_range(FRAMES):
            after = ()
            for n in tl.static_range(N):
                b, _c = halves(tl.load(step_pairs + (i * N + n)))
                after = after + (tl.exp2(dts[i] * A2[n]) * h[n] + xs[i] * b,)
            h = after
    where = row * chunks + chunk
    keep_states(values + where * N * channels + channel, channels, mask, h, N)
    tl.store(sums + where * channels + channel, total, mask=mask)


@jit
def chunk_gradients(
    delta0,
    delta1,
    z,
    grad_out,
    A,
    pairs,
    bias,
    lengths,
    values,
    sums,
    batch,
    time,
    channels,
    chunk_frames,
    chunks,
    steps,
    delta_b,
    delta_t,
    z_b,
    z_t,
    grad_b,
    grad_t,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    FRAMES: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):
    """What the outputs of a chunk add to the gradient of the state it begins with; as above."""
    block, chunk, item, row, second, backward = place(
        tl.cdiv(channels, BLOCK), chunks, batch, DIRECTIONS, REVERSE
    )
    channel = block * BLOCK + tl.arange(0, BLOCK)
    mask = channel < channels
    length, start, end = span(lengths, item, chunk, chunk_frames, time)
    delta = tl.where(second == 0, delta0, delta1) + item * delta_b + channel
    grad_out += item * grad_b + channel
    parameter = second * channels + channel
    A2 = per_state(A + parameter * N, 1, mask, 1.4426950408889634, N)
    shift = 0.0
    if bias is not None:
        shift = tl.load(bias + parameter, mask=mask, other=0.0)
    if z is not None:
        z += item * z_b + channel
    pairs += row * steps * N
    carry = _zeros(channel, N)
    total = tl.zeros_like(channel).to(tl.float32)
    rounds = tl.cdiv(tl.maximum(end - start, 0), FRAMES)
    for j in range(rounds):
        s = start + (rounds - 1 - j) * FRAMES
        step_pairs = pairs + tl.cast(s, tl.int64) * N
        dts, dys = (), ()
        for i in tl.static_range(FRAMES):
            t = frame(s + i, end, length, backward)
            valid = s + i < end
            raw = tl.load(delta + t * delta_t, mask=mask, other=0.0)
            dt = step_size(raw, shift, valid, SOFTPLUS)
            dy = tl.load(grad_out + t * grad_t, mask=mask & valid, other=0.0).to(tl.float32)
            if z is not None:
                gate = tl.load(z + t * z_t, mask=mask, other=0.0).to(tl.float32)
                dy = dy * gate * sigmoid(gate)
            dts, dys = dts + (dt,), dys + (dy,)
            total += dt
        for i in tl.static_range(FRAMES - 1, -1, -1):
            before = ()
            for n in tl.static_range(N):
                _b, c = halves(tl.load(step_pairs + (i * N + n)))
                before = before + (tl.exp2(dts[i] * A2[n]) * (carry[n] + c * dys[i]),)
            carry = before
    where = row * chunks + chunk
    keep_states(values + where * N * channels + channel, channels, mask, carry, N)
    tl.store(sums + where * channels + channel, total, mask=mask)


@jit
def chunk_starts(
    values,
    sums,
    A,
    ends,
    batch,
    channels,
    chunks,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    LAST_FIRST: tl.constexpr,
):
    """Replace what each chunk adds by what it begins with; a program takes one state.

    ``ends`` (batch, channels, N) or ``None`` is what the first chunk begins with, in the first
    direction; with ``LAST_FIRST`` the chunks are followed from the last to the first.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, BLOCK)
    channel = program % blocks * BLOCK + tl.arange(0, BLOCK)
    n = program // blocks % N
    row = tl.cast(program // blocks // N, tl.int64)
    second = row // batch
    mask = channel < channels
    A2 = tl.load(A + (second * channels + channel) * N + n, mask=mask, other=0.0)
    A2 *= 1.4426950408889634
    if ends is not None:
        own = mask & (second == 0)
        h = tl.load(ends + (row % batch * channels + channel) * N + n, mask=own, other=0.0)
    else:
        h = tl.zeros_like(A2)
    for k in range(chunks):
        where = row * chunks + (chunks - 1 - k if LAST_FIRST else k)
        value = values + (where * N + n) * channels + channel
        added = tl.load(value, mask=mask, other=0.0)
        total = tl.load(sums + where * channels + channel, mask=mask, other=0.0)
        tl.store(value, h, mask=mask)
        h = tl.exp2(total * A2) * h + added
