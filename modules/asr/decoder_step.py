"""One token through the Mamba decoder in one compiled call a layer (``modules/ssm/cpu/decoder.c``).

A step of a beam search is small: in torch's operations, their dispatch and the copies of states cost more than the
arithmetic. The kernel reads each hypothesis' state where its parent left it. The plain way is that of
``MambaDecoderLayer.step`` without ``parents``.
"""

from typing import NamedTuple

import torch
from speechbrain.nnet.activations import Swish
from torch import nn
from torch.nn import functional as F

from modules.layer_parts import decay_rates, number_bits
from modules.memory_reuse import nothing_watches
from modules.ssm import Mamba, MambaState
from modules.ssm.backends import forced_backend
from modules.ssm.cpu import build
from modules.ssm.cpu.tensors import call

# outputs of a matrix that lie side by side, as in the kernel
_PANEL = 16
# numbers in the largest matrix: with more of them, several threads of torch are faster than the kernel's one
_MOST_FOR_ONE_THREAD = 1 << 18
_SIZES = ("d_model", "d_inner", "d_state", "dt_rank", "d_conv")


def takes_step(layer, x, state, parents):
    """Whether :func:`layer_step` may stand in for ``MambaDecoderLayer.step``.

    Arguments
    ---------
    layer : modules.asr.mamba_decoder.MambaDecoderLayer
    x : torch.Tensor
        (hypotheses, d_model).
    state : (MambaState, MambaState)
        Of the parents.
    parents : torch.Tensor
        (hypotheses,) places of the parents in the state.
    """
    return (
        nothing_watches()
        and not layer.training
        and layer.normalize_before
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.dim() == 2
        and x.shape[1] == layer.self_mamba.d_model
        and parents.shape == x.shape[:1]
        and parents.dtype == torch.int64
        and forced_backend() in (None, "cpu")
        and build.refusal() is None
        and (plan := _plan(layer)).fits
        and (plan.largest <= _MOST_FOR_ONE_THREAD or torch.get_num_threads() == 1)
        and _states_fit(layer.self_mamba, state)
        # the kernel reads where it is told to; the plain way says what is wrong with other parents
        and (not len(parents) or int(parents.max()) < len(state[0].ssm))
    )


def layer_step(layer, x, state, parents, spare=None):
    """A decoder layer over one token of each hypothesis.

    Arguments
    ---------
    layer, x, state, parents
        What :func:`takes_step` takes; every parent is in the state, or under 0 where nothing is wanted.
    spare : (MambaState, MambaState), optional
        A state that nobody needs any more, whose memory the new one takes; never ``state`` itself.

    Returns
    -------
    (torch.Tensor, list of MambaState)
        (hypotheses, d_model), 0 where the parent is under 0; and the state of both blocks.
    """
    # as takes_step made it
    plan = layer.__dict__["_kept_plan"]
    x, parents = x.contiguous(), parents.contiguous()
    new_state, out = _room(state, len(x), spare), torch.empty_like(x)
    numbers = []
    for weights, old, new in zip(plan.blocks, state, new_state, strict=True):
        numbers += weights
        for one, other in zip(old, new, strict=True):
            numbers += [one.data_ptr(), other.data_ptr()]
    arrays = (parents.data_ptr(), x.data_ptr(), out.data_ptr())
    call("decoder_step", len(x), *plan.sizes, *arrays, *numbers, *plan.feed_forward)
    return out, new_state


class _Plan(NamedTuple):
    """What the kernel is told of a layer: whether it can take it, numbers, and the tensors behind them."""

    signature: list
    fits: bool
    largest: int
    sizes: tuple
    blocks: tuple
    feed_forward: list
    kept: list


def _plan(layer):
    """A layer's plan, made anew where a parameter has changed. Modules are never exchanged in use."""
    holders = layer.__dict__.get("_kept_holders")
    if holders is None:
        holders = [one._parameters for one in layer.modules() if one._parameters]
        layer.__dict__["_kept_holders"] = holders
    signature = [
        (one.data_ptr(), None if one.is_inference() else one._version)
        for parameters in holders
        for one in parameters.values()
        if one is not None
    ]
    plan = layer.__dict__.get("_kept_plan")
    if plan is None or plan.signature != signature or any(v is None for _, v in signature):
        plan = layer.__dict__["_kept_plan"] = _new_plan(layer, signature)
    return plan


def _new_plan(layer, signature):
    blocks, norms = (layer.self_mamba, layer.cross_mamba), (layer.norm1, layer.norm2, layer.norm3)
    widen, narrow = layer.pos_ffn.ffn[0], layer.pos_ffn.ffn[3]
    activation, block = _activation(layer), blocks[0]
    if not (
        all(type(one) is Mamba and one.dt_norm is None for one in blocks)
        and all(getattr(block, name) == getattr(blocks[1], name) for name in _SIZES)
        and all(type(one.norm) is nn.LayerNorm for one in norms)
        and all(type(one) is nn.Linear for one in (widen, narrow, *_matrices(blocks)))
        and activation is not None
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in layer.parameters())
    ):
        return _Plan(signature, False, 0, (), (), [], [])
    # the parameters too: no other ones can lie at the same address then
    kept, parts, feed_forward = [p.detach() for p in layer.parameters()], [], []
    for norm, one in zip(norms, blocks, strict=False):
        numbers = []
        _add_norm(norm.norm, kept, numbers)
        _add_block(one, kept, numbers)
        parts.append(numbers)
    _add_norm(norms[2].norm, kept, feed_forward)
    _add_matrix(widen, kept, feed_forward)
    _add_matrix(narrow, kept, feed_forward)
    sizes = (block.d_model, widen.out_features, block.d_inner, block.d_state, block.dt_rank)
    largest = max(one.weight.numel() for one in (widen, narrow, *_matrices(blocks)))
    return _Plan(
        signature,
        True,
        largest,
        (*sizes, block.d_conv, activation),
        tuple(parts),
        feed_forward,
        kept,
    )


def _matrices(blocks):
    return [one for b in blocks for one in (b.in_proj, b.x_proj, b.dt_proj, b.out_proj)]


def _room(state, count, spare):
    """States of so many hypotheses to write to: the spare ones if they fit."""
    if spare is not None and all(
        len(one) == count and one.is_contiguous() and one.data_ptr() != old.data_ptr()
        for states, olds in zip(spare, state, strict=True)
        for one, old in zip(states, olds, strict=True)
    ):
        return spare
    return [
        MambaState(*(one.new_empty(count, *one.shape[1:]) for one in states)) for states in state
    ]


def _activation(layer):
    """1 for Swish, 0 for GELU, None for another, which the kernel does not know."""
    one = layer.pos_ffn.ffn[1]
    if type(one) is Swish and one.beta == 1:
        return 1
    return 0 if type(one) is nn.GELU and one.approximate == "none" else None


def _states_fit(block, state):
    for conv, ssm in state:
        if not (
            conv.shape == (len(ssm), block.d_inner, block.d_conv)
            and ssm.shape[1:] == (block.d_inner, block.d_state)
            and conv.dtype == ssm.dtype == torch.float32
            and conv.device.type == ssm.device.type == "cpu"
            and conv.is_contiguous()
            and ssm.is_contiguous()
        ):
            return False
    return len(state[0].ssm) == len(state[1].ssm)


def _add_norm(norm, kept, numbers):
    _add(norm.weight, kept, numbers)
    _add(norm.bias, kept, numbers)
    numbers.append(number_bits(norm.eps))


def _add_block(block, kept, numbers):
    """A Mamba block's parameters in the kernel's order."""
    _add_matrix(block.in_proj, kept, numbers)
    _add(block.conv1d.weight, kept, numbers)
    _add(block.conv1d.bias, kept, numbers)
    _add_matrix(block.x_proj, kept, numbers)
    _add_matrix(block.dt_proj, kept, numbers)
    _add(decay_rates(block), kept, numbers)
    _add(block.D, kept, numbers)
    _add_matrix(block.out_proj, kept, numbers)


def _add_matrix(linear, kept, numbers):
    _add(_panels(linear.weight), kept, numbers)
    _add(linear.bias, kept, numbers)


def _add(tensor, kept, numbers):
    """Add a tensor's address; it is kept for as long as the kernel reads it."""
    if tensor is None:
        numbers.append(0)
        return
    tensor = tensor.contiguous()
    kept.append(tensor)
    numbers.append(tensor.data_ptr())


def _panels(weight):
    """A matrix (out, in) as (panels, in, _PANEL), padded with 0."""
    numbers = weight.detach()
    padded = F.pad(numbers, (0, 0, 0, -len(numbers) % _PANEL))
    return padded.view(-1, _PANEL, numbers.shape[1]).transpose(1, 2).contiguous()
