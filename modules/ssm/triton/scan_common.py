"""What the passes of the Triton scan share: where a program works, and the elementwise functions.

A program handles some neighbouring channels of one utterance, in one direction, over one chunk of
time. Frames are counted in the order in which they are processed, so that both directions run the
same code: step ``s`` is frame ``s``, or frame ``length - 1 - s`` backwards.
"""

from modules.ssm.triton.counts import frame_count
from modules.ssm.triton.language import jit, tl


@jit
def place(blocks, chunks, batch, directions: tl.constexpr, reverse: tl.constexpr):
    """Block of channels, chunk, utterance, row of ``(direction, utterance)`` and direction."""
    program = tl.program_id(0)
    block = program % blocks
    rest = program // blocks
    chunk = rest % chunks
    row = rest // chunks
    second = row // batch
    item = row % batch
    backward = (second == 1) if directions == 2 else (second == (0 if reverse else 1))
    return block, chunk, item.to(tl.int64), row.to(tl.int64), second, backward


@jit
def span(lengths, item, chunk, chunk_frames, time):
    """Length of the utterance, and the first and the last but one step of the chunk within it."""
    length = frame_count(lengths, item, time)
    start = chunk * chunk_frames
    end = tl.minimum(start + chunk_frames, length)
    return length, start, end


@jit
def frame(step, end, length, backward):
    """Frame of a step. A step past the end reads the last one instead; its dt is then set to 0."""
    step = tl.minimum(step, end - 1)
    return tl.maximum(tl.where(backward, length - 1 - step, step), 0)


@jit
def rows(base, stride, step, end, length, backward, mask, FRAMES: tl.constexpr):
    """Rows of FRAMES successive steps, in their own dtype."""
    values = ()
    for i in tl.static_range(FRAMES):
        t = frame(step + i, end, length, backward)
        values = values + (tl.load(base + t * stride, mask=mask, other=0.0),)
    return values


@jit
def softplus(x):
    """``log(1 + exp(x))`` to single precision everywhere.

    With ``e = exp(-|x|)`` it is ``max(x, 0) + log1p(e)``, and ``log1p(e) = 2 artanh(e / (2 + e))`` is
    a polynomial, fitted to 4e-10. The hardware's logarithm is inexact near 1, where small steps are.
    """
    e = tl.exp2(-1.4426950408889634 * tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    p = 0.23239062 * q + 0.21703312
    p = p * q + 0.28592584
    p = p * q + 0.39999701
    p = p * q + 0.66666667
    return tl.maximum(x, 0.0) + (p * q * s + 2.0 * s)


@jit
def sigmoid(x):
    """``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + tl.exp2(-1.4426950408889634 * x))


@jit
def step_size(delta, shift, valid, SOFTPLUS: tl.constexpr):
    """The discretisation step in float32, 0 where ``valid`` is not."""
    dt = delta.to(tl.float32) + shift
    if SOFTPLUS:
        dt = softplus(dt)
    return tl.where(valid, dt, 0.0)


@jit
def halves(pair):
    """The two float32 numbers of 64 bits, the lower first: B and C of one state and frame."""
    low = pair.to(tl.int32).to(tl.float32, bitcast=True)
    high = (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return low, high


@jit
def together(low, high):
    """The inverse of :func:`halves`."""
    low = low.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return low | (high.to(tl.int32, bitcast=True).to(tl.int64) << 32)


@jit
def per_state(pointer, stride, mask, scale, N: tl.constexpr):
    """``scale`` times N rows of numbers, a row ``stride`` after the one before."""
    values = ()
    for n in tl.static_range(N):
        values = values + (tl.load(pointer + n * stride, mask=mask, other=0.0) * scale,)
    return values


@jit
def keep_states(pointer, stride, mask, values, N: tl.constexpr):
    """Store what :func:`per_state` loads."""
    for n in tl.static_range(N):
        tl.store(pointer + n * stride, values[n], mask=mask)


@jit
def boundary(pointer, ends, stride, row, item, channel, mask, channels, second, N: tl.constexpr):
    """The state (or its gradient) that a chunk begins with.

    ``pointer`` is the chunk's own, (state, channel), computed beforehand; without chunks it is
    ``None``, and ``ends``, (item, channel, state), counts in the first direction only.
    """
    if pointer is not None:
        return per_state(pointer + stride * N * channels + channel, channels, mask, 1.0, N)
    if ends is not None:
        own = mask & (second == 0)
        return per_state(ends + (item * channels + channel) * N, 1, own, 1.0, N)
    values = ()
    for _n in tl.static_range(N):
        values = values + (tl.zeros_like(channel).to(tl.float32),)
    return values
