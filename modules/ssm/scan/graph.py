"""The ``graph`` backend: the selective scan as plain operations and a loop that exporters keep.

``torch.export`` and ``torch.jit.trace`` unroll a Python loop at the length of their example. The loop here is
``torch._higher_order_ops.scan`` for ``torch.export``, which makes ONNX's ``Scan`` of it, and a scripted loop elsewhere.
``auto`` never takes this backend: ``use_backend("graph")`` asks for it.
"""

from functools import cache

import torch
from torch.nn import functional as F

from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.scan.naive import compute_dtype


def selective_scan_graph(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    *,
    lengths=None,
    reverse=False,
    initial_state=None,
):
    """Selective scan for exporters; arguments and results as in :func:`selective_scan_naive`."""
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
    with torch.autocast(u.device.type, enabled=False):
        valid = valid_frames(lengths, u.shape[1], u.device)
        inputs, step, b, c = (keep_valid(x.to(dtype), valid) for x in (u, delta, B, C))
        if delta_bias is not None:
            step = step + delta_bias.to(dtype)
        # a frame with a step of 0, before an utterance or behind it, leaves the state as it is
        step = keep_valid(F.softplus(step) if delta_softplus else step, valid)
        frames = [step, step * inputs, b, c]
        if reverse:
            frames = [x.flip(1) for x in frames]
        state = inputs.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state
        state = state.to(dtype).clone(memory_format=torch.contiguous_format)
        state, y = _loop(state, *(x.transpose(0, 1) for x in frames), A.to(dtype))
        y = y.transpose(0, 1)
        y = y.flip(1) if reverse else y
        if D is not None:
            y = y + D.to(dtype) * inputs
        if z is not None:
            y = y * F.silu(keep_valid(z.to(dtype), valid))
        return keep_valid(y, valid).to(u.dtype), state


def _loop(state, step, x, b, c, A):
    """The state after all frames, and their outputs (time, batch, channels), from frames with the time first."""
    if not torch.compiler.is_compiling():
        return _scripted_loop()(state, step, x, b, c, A)
    # not at the top: it loads much of torch's compiler
    from torch._higher_order_ops.scan import scan

    def frame(state, now):
        step, x, b, c = now
        decay = torch.exp(step.unsqueeze(-1) * A)
        state = decay * state + x.unsqueeze(-1) * b.unsqueeze(-2)
        return state, torch.matmul(state, c.unsqueeze(-1)).squeeze(-1)

    return scan(frame, state, (step, x, b, c))


@cache
def _scripted_loop():
    return torch.jit.script(_python_loop)


def _python_loop(state, step, x, b, c, A):
    outputs = [torch.zeros_like(step[:0])]
    for t in range(step.size(0)):
        decay = torch.exp(step[t].unsqueeze(-1) * A)
        state = decay * state + x[t].unsqueeze(-1) * b[t].unsqueeze(-2)
        outputs.append(torch.matmul(state, c[t].unsqueeze(-1)).squeeze(-1).unsqueeze(0))
    return state, torch.cat(outputs)
