"""Retention in its three equal forms, and the multi-scale layer that the published keyword RetNet uses.

Source: Sun et al., "Retentive Network: A Successor to Transformer for Large Language Models" (arXiv
2307.08621, section 2), without its rotation of queries and keys, as the published network has it.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from modules.ssm.checks import (
    check_count,
    check_input,
    check_module_input,
    check_tensor,
    is_dense,
)


def decay_rates(heads, device=None):
    """Decay a frame of each head, (heads,): 1 - 1/32 in the first to 1 - 1/512 in the last, evenly in the log.

    Example
    -------
    >>> decay_rates(2).tolist()
    [0.96875, 0.998046875]
    """
    slowest, fastest = math.log(1 / 512), math.log(1 / 32)
    return 1 - torch.exp(torch.linspace(fastest, slowest, heads, device=device))


def retention_parallel(q, k, v, decay, state=None):
    """Retention as one product of matrices: quadratic in time.

    ``out[t] = q[t] sum_{s <= t} decay^(t - s) k[s]^T v[s] / sqrt(head_dim)``.

    Arguments
    ---------
    q, k, v : torch.Tensor
        (batch, time, heads, head_dim).
    decay : torch.Tensor
        (heads,), within 0..1.
    state : torch.Tensor, optional
        (batch, heads, head_dim, head_dim), what the frames before left; ``None`` for none.

    Returns
    -------
    (torch.Tensor, torch.Tensor)
        (batch, time, heads, head_dim), and the state after the last frame.

    Raises
    ------
    ValueError
        If an argument has another type, shape or device.

    Example
    -------
    >>> import torch
    >>> q, k, v = torch.randn(3, 2, 7, 2, 8).unbind()
    >>> whole, state = retention_parallel(q, k, v, decay_rates(2))
    >>> steps, last = retention_recurrent(q, k, v, decay_rates(2))
    >>> torch.allclose(whole, steps, atol=1e-5), torch.allclose(state, last, atol=1e-5)
    (True, True)
    """
    _check(q, k, v, decay, state)
    if not q.shape[1]:
        return _without_frames(q, v, state)
    k = k / math.sqrt(k.shape[-1])
    steps = torch.arange(q.shape[1], device=q.device)
    age = steps[:, None] - steps  # frames from s to t, (t, s)
    weight = decay[:, None, None] ** age.clamp(min=0) * (age >= 0)
    out = torch.einsum("bthd,bshd,hts,bshe->bthe", q, k, weight.to(q.dtype), v)
    # frames left after each, and what is then left of it
    left = decay ** steps.flip(0)[:, None]  # (time, heads)
    new = torch.einsum("bshd,sh,bshe->bhde", k, left.to(k.dtype), v)
    if state is not None:
        past = decay ** (steps + 1)[:, None]
        out = out + torch.einsum("bthd,th,bhde->bthe", q, past.to(q.dtype), state)
        new = new + past[-1, :, None, None].to(q.dtype) * state
    return out, new


def retention_recurrent(q, k, v, decay, state=None):
    """Retention frame by frame; arguments, results and errors are the same as for :func:`retention_parallel`."""
    _check(q, k, v, decay, state)
    out, state = _without_frames(q, v, state)
    if not q.shape[1]:
        return out, state
    k = k / math.sqrt(k.shape[-1])
    decay = decay.to(q.dtype)[:, None, None]
    out = []
    for t in range(q.shape[1]):
        state = decay * state + k[:, t, :, :, None] * v[:, t, :, None]
        out.append((q[:, t, :, None] @ state).squeeze(2))
    return torch.stack(out, 1), state


def retention_chunkwise(q, k, v, decay, state=None, chunk=64):
    """Retention in parallel within chunks of frames and recurrent between them: linear in time.

    Arguments, results and errors are the same as for :func:`retention_parallel`; ``chunk`` is in frames, 1 or more.
    """
    check_count("chunk", chunk)
    _check(q, k, v, decay, state)
    if not q.shape[1]:
        return _without_frames(q, v, state)
    out = []
    for start in range(0, q.shape[1], chunk):
        part = slice(start, start + chunk)
        y, state = retention_parallel(q[:, part], k[:, part], v[:, part], decay, state)
        out.append(y)
    return torch.cat(out, 1), state


def _check(q, k, v, decay, state):
    """Raise ``ValueError`` if the tensors are no retention's."""
    check_input("q", q, ("batch", "time", "heads", "head_dim"))
    check_tensor("k", k, tuple(q.shape), q.device)
    width = v.shape[-1] if is_dense(v) and v.dim() == 4 else "head_dim"
    check_tensor("v", v, (*q.shape[:3], width), q.device)
    check_tensor("decay", decay, (q.shape[2],), q.device)
    if state is not None:
        check_tensor("state", state, (q.shape[0], *q.shape[2:], width), q.device)
    if torch.is_autocast_enabled(q.device.type):
        return
    for name, tensor in (("k", k), ("v", v), ("state", state)):
        if tensor is not None and tensor.dtype != q.dtype:
            raise ValueError(f"{name} must have the type of q, {q.dtype}; got {tensor.dtype}")


def _without_frames(q, v, state):
    """What retention gives before the first frame: no output, and the given state or zeros."""
    if state is None:
        state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    return v[:, :0], state


FORMS = {
    "parallel": retention_parallel,
    "recurrent": retention_recurrent,
    "chunkwise": retention_chunkwise,
}


class MultiScaleRetention(nn.Module):
    """Retention with a decay of its own in each head, normalised a frame and head, and gated.

    Parameters have the published network's names.

    Arguments
    ---------
    d_model, n_heads : int
        Channels, a multiple of the heads.

    Raises
    ------
    ValueError
        If ``d_model`` is no multiple of ``n_heads``, or a form is unknown.

    Example
    -------
    >>> import torch
    >>> layer = MultiScaleRetention(d_model=32, n_heads=4)
    >>> q, k, v = torch.randn(3, 2, 10, 32).unbind()
    >>> layer(q, k, v)[0].shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, d_model, n_heads):
        super().__init__()
        check_count("d_model", d_model)
        check_count("n_heads", n_heads)
        if d_model % n_heads:
            raise ValueError(f"d_model = {d_model} must be a multiple of n_heads = {n_heads}")
        self.n_heads = n_heads
        for name in ("q_proj", "k_proj", "v_proj", "g_proj", "out_proj"):
            projection = nn.Linear(d_model, d_model)
            nn.init.xavier_normal_(projection.weight)
            nn.init.zeros_(projection.bias)
            self.add_module(name, projection)

    def forward(self, q, k, v, state=None, form="chunkwise"):
        """Run the layer.

        Arguments
        ---------
        q, k, v : torch.Tensor
            (batch, time, d_model).
        state : torch.Tensor, optional
            What the frames before left, (batch, heads, head_dim, head_dim).
        form : str
            ``parallel``, ``recurrent`` or ``chunkwise``: the same numbers at another cost.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch, time, d_model), and the state after the last frame.

        Raises
        ------
        ValueError
            If an argument has another type, shape or device, or the form is unknown.
        """
        for name, x in (("q", q), ("k", k), ("v", v)):
            check_module_input(name, x, self.q_proj.weight, ("batch", "time", "d_model"))
            if x.shape != q.shape:
                raise ValueError(
                    f"{name} must have the shape of q, {tuple(q.shape)}; got {tuple(x.shape)}"
                )
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
        heads = (
            projection(x).unflatten(-1, (self.n_heads, -1))
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        # no buffer: in bfloat16 the slow heads would not decay at all
        decay = decay_rates(self.n_heads, q.device)
        out, state = FORMS[form](*heads, decay, state)
        # a group norm without weights over each frame's head
        out = F.layer_norm(out, out.shape[-1:], eps=1e-6).flatten(2)
        return self.out_proj(out * F.silu(self.g_proj(q))), state
