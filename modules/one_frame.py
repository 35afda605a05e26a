"""A causal ConMamba layer over one frame, in as few operations as it takes.

A stream in short pieces gives the encoder one frame at a time. The general way through a layer costs more in calls and
checks than in arithmetic then. Here a compiled kernel does all of the layer (``modules/ssm/cpu/frame.c``). Where there
is none, the recurrences are written out in torch's operations. The results are the same.
"""

import torch
from speechbrain.nnet.activations import Swish
from torch import nn
from torch.nn import functional as F

from modules.layer_parts import decay_rates, half_feed_forward, normed, number_bits
from modules.memory_reuse import activate, nothing_watches
from modules.ssm import Mamba, MambaState
from modules.ssm.cpu import build
from modules.ssm.cpu.tensors import call

# numbers in a block's state: with more of them, the compiled scan is faster than the few operations here
_MOST = 1 << 15
# numbers in a feed-forward matrix: with more of them, several threads of torch are faster than the kernel's one
_MOST_FOR_ONE_THREAD = 1 << 18
# the layer's parts in the order of the kernel's arguments
_PARTS = (
    "ffn_module1.0",
    "ffn_module1.1.ffn.0",
    "ffn_module1.1.ffn.3",
    "norm1.norm",
    "mamba.in_proj",
    "mamba.conv1d",
    "mamba.x_proj",
    "mamba.dt_proj",
    "mamba",
    "mamba.out_proj",
    "convolution_module.layer_norm",
    "convolution_module.bottleneck.0",
    "convolution_module.conv",
    "convolution_module.after_conv.0",
    "convolution_module.after_conv.2",
    "ffn_module2.0",
    "ffn_module2.1.ffn.0",
    "ffn_module2.1.ffn.3",
    "norm2.norm",
)


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
        and _fits(layer, x, state)
    )


def _fits(layer, x, state):
    """Whether a frame and a state are the layer's; the general way says what is wrong with others.

    The kernel reads as far as the layer's sizes say.
    """
    (conv, ssm), conv_state = state
    mamba, (batch, _, width) = layer.mamba, x.shape
    return (
        width == mamba.d_model
        and conv.shape == (batch, mamba.d_inner, mamba.d_conv)
        and ssm.shape == (batch, mamba.d_inner, mamba.d_state)
        and conv_state.shape == (batch, width, layer.convolution_module.kernel_size - 1)
        and conv.dtype == ssm.dtype == conv_state.dtype == torch.float32
        and conv.device == ssm.device == conv_state.device == x.device
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
    found = _by_kernel(layer, x, state) if _kernel_takes(layer, x) else None
    return _by_torch(layer, x, state) if found is None else found


def _by_torch(layer, x, state):
    x, (mamba_state, conv_state) = x[:, 0], state
    x = half_feed_forward(layer.ffn_module1, x)
    mixed, mamba_state = mamba_frame(layer.mamba, normed(layer.norm1.norm, x), mamba_state)
    x = x + mixed
    convolved, conv_state = _convolution_frame(layer.convolution_module, x, conv_state)
    x = half_feed_forward(layer.ffn_module2, x + convolved)
    return normed(layer.norm2.norm, x).unsqueeze(1), (mamba_state, conv_state)


def _kernel_takes(layer, x):
    """Whether the kernel knows the layer's parts and is there."""
    widen, activation = layer.ffn_module1[1].ffn[:2]
    kinds = {(type(one), one.beta if type(one) is Swish else 1) for one in _activations(layer)}
    return (
        x.device.type == "cpu"
        and kinds in ({(nn.GELU, 1)}, {(Swish, 1)})
        and getattr(activation, "approximate", "none") == "none"
        and (torch.get_num_threads() == 1 or widen.weight.numel() <= _MOST_FOR_ONE_THREAD)
        and build.refusal() is None
    )


def _activations(layer):
    first, second = (module[1].ffn[1] for module in (layer.ffn_module1, layer.ffn_module2))
    return first, second, layer.convolution_module.after_conv[1]


def _by_kernel(layer, x, state):
    """The layer by the kernel, or None where a parameter is not float32 in the processor's memory."""
    # the parameters of the parts as one list, which keeps them while the kernel reads them
    kept, numbers = [], []
    for part in _parts(layer):
        kept += _numbers(part, numbers)
    given = [one for one in kept if one is not None]
    if not all(one.dtype == torch.float32 and one.device.type == "cpu" for one in given):
        return None
    mamba, (conv, ssm), conv_state = layer.mamba, state[0], state[1].contiguous()
    x, conv, ssm = x.contiguous(), conv.contiguous(), ssm.contiguous()
    out, new_conv, new_ssm = torch.empty_like(x), torch.empty_like(conv), torch.empty_like(ssm)
    new_conv_state = torch.empty_like(conv_state)
    widen, activation = layer.ffn_module1[1].ffn[:2]
    sizes = (mamba.d_inner, mamba.d_state, mamba.dt_rank, mamba.d_conv, conv_state.shape[2] + 1)
    arrays = (x, out, conv, new_conv, ssm, new_ssm, conv_state, new_conv_state)
    call(
        "frame_forward",
        x.shape[0],
        x.shape[2],
        widen.out_features,
        *sizes,
        type(activation) is Swish,
        *(array.data_ptr() for array in arrays),
        *numbers,
    )
    return out, (MambaState(new_conv, new_ssm), new_conv_state)


def _parts(layer):
    """The layer's parts in the kernel's order; looked up once, as they are never exchanged in use."""
    kept = layer.__dict__.get("_kept_parts")
    if kept is None:
        kept = layer.__dict__["_kept_parts"] = [layer.get_submodule(name) for name in _PARTS]
    return kept


def _numbers(part, numbers):
    """Add the kernel's arguments for a part; the tensors that have to live as long."""
    parameters = part._parameters
    if type(part) is Mamba:
        tensors = [decay_rates(part), parameters["D"].contiguous()]
    else:
        tensors = [
            None if one is None else one.contiguous()
            for one in (parameters["weight"], parameters["bias"])
        ]
    numbers += [0 if one is None else one.data_ptr() for one in tensors]
    if type(part) is nn.LayerNorm:
        numbers.append(number_bits(part.eps))
    return tensors


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
    decay = torch.mul(dt.unsqueeze(-1), decay_rates(block)).exp_()
    ssm = decay.mul_(state.ssm).addcmul_((dt * u).unsqueeze(-1), b.unsqueeze(1))
    y = torch.bmm(ssm, c.unsqueeze(-1)).squeeze(-1)
    y = y.addcmul_(block.D, u).mul_(F.silu(z))
    return F.linear(y, block.out_proj.weight, block.out_proj.bias), MambaState(conv, ssm)


def _convolved(past, new, conv):
    """The depthwise convolution's last inputs (batch, channels, kernel) with a new one, and its output."""
    inputs = torch.cat([past[..., 1:], new.unsqueeze(-1)], -1)
    out = torch.mul(inputs, conv.weight.squeeze(1)).sum(-1)
    return inputs, out if conv.bias is None else out.add_(conv.bias)


def _convolution_frame(module, x, state):
    """Conformer's convolution module over one frame; the state has one input less than the kernel."""
    pointwise = module.bottleneck[0]
    x = F.linear(normed(module.layer_norm, x), pointwise.weight.squeeze(-1), pointwise.bias)
    inputs, out = _convolved(F.pad(state, (1, 0)), F.glu(x, -1), module.conv)
    norm, activation, linear, _ = module.after_conv
    out = F.linear(activate(activation, normed(norm, out)), linear.weight, linear.bias)
    # a copy, since a view would keep what nobody reads
    return out, inputs[..., 1:].clone()
