"""A ConMamba layer over one chunk of a stream, with fewer calls than the general way through it.

The general way checks, pads and cuts for many chunks and uneven utterances. A chunk of some frames costs more in such
calls than in arithmetic. The results are the same. :mod:`modules.one_frame` does so for one frame of a causal layer.
"""

import torch
from torch.nn import functional as F

from modules.layer_parts import decay_rates, half_feed_forward, normed
from modules.memory_reuse import activate, nothing_watches
from modules.ssm import (
    ChunkedBiMamba,
    MambaState,
    bidirectional_conv1d,
    bidirectional_scan,
    depthwise_conv1d,
)

# frames from which the arithmetic counts more than the calls
_MOST_FRAMES = 128


def takes_one_chunk(layer, x, lengths, chunks, state):
    """Whether :func:`layer_chunk` may stand in for a ConMamba layer's ``forward``.

    Arguments
    ---------
    layer : modules.conmamba.ConmambaEncoderLayer
    x, lengths, chunks, state
        See its ``forward``; ``chunks`` is its ``dynchunktrain_config``.
    """
    mamba = layer.mamba
    return (
        state is not None
        and chunks is not None
        and x.shape[1] <= min(chunks.chunk_size, _MOST_FRAMES)
        and lengths is None
        and not layer.training
        and type(mamba) is ChunkedBiMamba
        and mamba.dt_norm is None
        and nothing_watches()
        and not torch.is_autocast_enabled(x.device.type)
        and x.dtype == torch.float32 == mamba.in_proj.weight.dtype
    )


def layer_chunk(layer, x, state):
    """A ConMamba layer over one chunk of each utterance; equal to its ``forward`` in evaluation mode.

    Arguments
    ---------
    layer : modules.conmamba.ConmambaEncoderLayer
        One that :func:`takes_one_chunk` takes.
    x : torch.Tensor
        (batch, time, d_model).
    state : (modules.ssm.MambaState, torch.Tensor)
        Left as it was.

    Returns
    -------
    (torch.Tensor, tuple)
        (batch, time, d_model) and the state behind the chunk.
    """
    mamba_state, conv_state = state
    x = half_feed_forward(layer.ffn_module1, x)
    mixed, mamba_state = _mamba_chunk(layer.mamba, normed(layer.norm1.norm, x), mamba_state)
    x = x + mixed
    convolved, conv_state = _convolution_chunk(layer.convolution_module, x, conv_state)
    x = half_feed_forward(layer.ffn_module2, x + convolved)
    return normed(layer.norm2.norm, x), (mamba_state, conv_state)


def _mamba_chunk(block, x, state):
    inner, z = F.linear(x, block.in_proj.weight, block.in_proj.bias).chunk(2, -1)
    *u, conv_state = bidirectional_conv1d(
        inner,
        (block.conv1d.weight, block.conv1d_b.weight),
        (block.conv1d.bias, block.conv1d_b.bias),
        "silu",
        initial_state=state.conv,
    )
    sizes = [block.dt_rank, block.d_state, block.d_state]
    ahead = F.linear(u[0], block.x_proj.weight).split(sizes, -1)
    back = F.linear(u[1], block.x_proj_b.weight).split(sizes, -1)
    y, ssm_state = bidirectional_scan(
        u,
        (F.linear(ahead[0], block.dt_proj.weight), F.linear(back[0], block.dt_proj_b.weight)),
        (decay_rates(block, "A_log"), decay_rates(block, "A_b_log")),
        (ahead[1], back[1]),
        (ahead[2], back[2]),
        (block.D, block.D_b),
        z,
        (block.dt_proj.bias, block.dt_proj_b.bias),
        delta_softplus=True,
        initial_state=state.ssm,
        return_last_state=True,
    )
    y = 0.5 * y if block.average else y
    out = F.linear(y, block.out_proj.weight, block.out_proj.bias)
    return out, MambaState(conv_state, ssm_state)


def _convolution_chunk(module, x, state):
    """Conformer's convolution module over one chunk; the state is the inputs before it, (batch, channels, frames)."""
    pointwise = module.bottleneck[0]
    x = F.linear(normed(module.layer_norm, x), pointwise.weight.squeeze(-1), pointwise.bias)
    inputs = torch.cat([state.transpose(1, 2), F.glu(x, -1)], 1)
    # zeros stand in place of the frames behind the chunk
    ahead = module.kernel_size - 1 - module.padding
    out = depthwise_conv1d(inputs, module.conv.weight, module.conv.bias, ahead=ahead)
    norm, activation, linear, _ = module.after_conv
    out = activate(activation, normed(norm, out[:, state.shape[2] :]))
    out = F.linear(out, linear.weight, linear.bias)
    # a copy, since a view would keep all frames
    return out, inputs[:, inputs.shape[1] - state.shape[2] :].transpose(1, 2).contiguous()
