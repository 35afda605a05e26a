"""A causal ConMamba layer over one frame, in as few operations as it takes.

A stream in short pieces gives the encoder one frame at a time. The general way through a layer costs more in calls and
checks than in arithmetic then. Here the recurrences are written out for one frame; the results are the same.
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.memory_reuse import activate, nothing_watches
from modules.ssm import Mamba, MambaState

# numbers in a block's state: with more of them, the compiled scan is faster than the few operations here
_MOST = 1 << 15


def takes_one_frame(layer, x, lengths, state):
    """Whether :func:`layer_frame` may stand in for a ConMamba layer's ``forward``.

    Arguments
    ---------
    layer : modules.conmamba.ConmambaEncoderLayer
    x, lengths, state
        See its ``forward``.
    """
    mamba = layer.mamba
    return (
        x.shape[1] == 1
        and state is not None
        and lengths is None
        and not layer.training
        and type(mamba) is Mamba
        and mamba.dt_norm is None
        and layer.convolution_module.causal
        and nothing_watches()
        and not torch.is_autocast_enabled(x.device.type)
        and x.dtype == torch.float32 == mamba.in_proj.weight.dtype
        and state[0].ssm.numel() <= _MOST
    )


def layer_frame(layer, x, state):
    """A causal ConMamba layer over one frame of each utterance; equal to its ``forward`` in evaluation mode.

    Arguments
    ---------
    layer : modules.conmamba.ConmambaEncoderLayer
        One that :func:`takes_one_frame` takes.
    x : torch.Tensor
        (batch, 1, d_model).
    state : (modules.ssm.MambaState, torch.Tensor)
        Left as it was.

    Returns
    -------
    (torch.Tensor, tuple)
        (batch, 1, d_model) and the state behind the frame.
    """
    x, (mamba_state, conv_state) = x[:, 0], state
    x = _half_feed_forward(layer.ffn_module1, x)
    mixed, mamba_state = mamba_frame(layer.mamba, _normed(layer.norm1.norm, x), mamba_state)
    x = x + mixed
    convolved, conv_state = _convolution_frame(layer.convolution_module, x, conv_state)
    x = _half_feed_forward(layer.ffn_module2, x + convolved)
    return _normed(layer.norm2.norm, x).unsqueeze(1), (mamba_state, conv_state)


def mamba_frame(block, x, state):
    """A :class:`modules.ssm.Mamba` block over one frame: (batch, d_model), and the state behind it.

    Example
    -------
    >>> block, x = Mamba(d_model=16).eval(), torch.randn(2, 3, 16)
    >>> with torch.no_grad():
    ...     whole, state = block(x, return_state=True)
    ...     _, before = block(x[:, :2], return_state=True)
    ...     last, after = mamba_frame(block, x[:, 2], before)
    >>> torch.allclose(last, whole[:, 2], atol=1e-5), torch.allclose(after.ssm, state.ssm, atol=1e-5)
    (True, True)
    """
    inner, z = F.linear(x, block.in_proj.weight, block.in_proj.bias).chunk(2, -1)
    conv, u = _convolved(state.conv, inner, block.conv1d)
    u = F.silu(u, inplace=True)
    dt, b, c = F.linear(u, block.x_proj.weight).split(
        [block.dt_rank, block.d_state, block.d_state], -1
    )
    dt = F.softplus(F.linear(dt, block.dt_proj.weight, block.dt_proj.bias))
    # (batch, inner channels, states)
    decay = torch.mul(dt.unsqueeze(-1), _decay_rates(block)).exp_()
    ssm = decay.mul_(state.ssm).addcmul_((dt * u).unsqueeze(-1), b.unsqueeze(1))
    y = torch.bmm(ssm, c.unsqueeze(-1)).squeeze(-1)
    y = y.addcmul_(block.D, u).mul_(F.silu(z))
    return F.linear(y, block.out_proj.weight, block.out_proj.bias), MambaState(conv, ssm)


def _decay_rates(block):
    """The block's A, made anew where its parameter has changed."""
    parameter = block.A_log
    now = (parameter.data_ptr(), None if parameter.is_inference() else parameter._version)
    kept = block.__dict__.get("_kept_rates")
    if kept is None or kept[0] != now or now[1] is None:
        kept = block.__dict__["_kept_rates"] = (now, -torch.exp(parameter.detach()))
    return kept[1]


def _convolved(past, new, conv):
    """The depthwise convolution's last inputs (batch, channels, kernel) with a new one, and its output."""
    inputs = torch.cat([past[..., 1:], new.unsqueeze(-1)], -1)
    out = torch.mul(inputs, conv.weight.squeeze(1)).sum(-1)
    return inputs, out if conv.bias is None else out.add_(conv.bias)


def _convolution_frame(module, x, state):
    """Conformer's convolution module over one frame; the state has one input less than the kernel."""
    pointwise = module.bottleneck[0]
    x = F.linear(_normed(module.layer_norm, x), pointwise.weight.squeeze(-1), pointwise.bias)
    inputs, out = _convolved(F.pad(state, (1, 0)), F.glu(x, -1), module.conv)
    norm, activation, linear, _ = module.after_conv
    out = F.linear(activate(activation, _normed(norm, out)), linear.weight, linear.bias)
    # a copy, since a view would keep what nobody reads
    return out, inputs[..., 1:].clone()


def _half_feed_forward(module, x):
    norm, feed_forward, _ = module
    widen, activation, _, narrow = feed_forward.ffn
    inner = F.linear(_normed(norm, x), widen.weight, widen.bias)
    inner = activate(activation, inner)
    return torch.add(x, F.linear(inner, narrow.weight, narrow.bias), alpha=0.5)


def _normed(norm, x):
    if type(norm) is not nn.LayerNorm:
        return norm(x)
    return torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
