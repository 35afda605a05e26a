"""B and C side by side in the order in which frames are processed, for the Triton scan, and back.

The scan reads one 64-bit number a state and frame, B below C, from rows that are padded with zeros to
whole groups of frames: the inner loops then need neither masks nor address arithmetic for them. The
gradients come back in the same form, one partial sum a block of channels, and are added here in order.
"""

from modules.ssm.triton.counts import frame_count
from modules.ssm.triton.language import jit, tl
from modules.ssm.triton.scan_common import halves, place, together


@jit
def pack_pairs(
    B0,
    B1,
    C0,
    C1,
    lengths,
    pairs,
    batch,
    time,
    steps,
    B_b,
    B_t,
    C_b,
    C_t,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """``pairs`` (direction, batch, steps, N) from B and C (batch, time, N); WIDTH is a power of two."""
    block, _c, item, row, second, backward = place(
        tl.cdiv(steps, ROWS), 1, batch, DIRECTIONS, REVERSE
    )
    s = block * ROWS + tl.arange(0, ROWS)[:, None]
    n = tl.arange(0, WIDTH)[None, :]
    length = frame_count(lengths, item, time)
    t = tl.where(backward, length - 1 - s, s).to(tl.int64)
    valid = (s < length) & (n < N)
    B = tl.where(second == 0, B0, B1) + item * B_b
    C = tl.where(second == 0, C0, C1) + item * C_b
    b = tl.load(B + t * B_t + n, mask=valid, other=0.0).to(tl.float32)
    c = tl.load(C + t * C_t + n, mask=valid, other=0.0).to(tl.float32)
    tl.store(pairs + row * steps * N + s * N + n, together(b, c), mask=(s < steps) & (n < N))


@jit
def unpack_pairs(
    sums,
    lengths,
    grad_B,
    grad_C,
    batch,
    time,
    steps,
    parts,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Gradients (direction, batch, time, N) from ``sums`` (direction, batch, parts, steps, N)."""
    block, _c, item, row, _s, backward = place(tl.cdiv(time, ROWS), 1, batch, DIRECTIONS, REVERSE)
    t = block * ROWS + tl.arange(0, ROWS)[:, None]
    n = tl.arange(0, WIDTH)[None, :]
    length = frame_count(lengths, item, time)
    s = tl.where(backward, length - 1 - t, t)
    valid = (t < length) & (n < N)
    gb = tl.zeros([ROWS, WIDTH], tl.float32)
    gc = tl.zeros([ROWS, WIDTH], tl.float32)
    for part in range(parts):
        b, c = halves(
            tl.load(sums + (row * parts + part) * steps * N + s * N + n, mask=valid, other=0)
        )
        gb += b
        gc += c
    place_out = row * time * N + t * N + n
    inside = (t < time) & (n < N)
    tl.store(grad_B + place_out, gb, mask=inside)
    tl.store(grad_C + place_out, gc, mask=inside)
