"""Parts of ConMamba's layer in few calls, which the fast paths of one frame and of one chunk have in common."""

import struct
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from modules.memory_reuse import activate


def normed(norm, x):
    """``norm(x)``, (..., channels), in one call where it is a LayerNorm.

    Example
    -------
    >>> norm = nn.LayerNorm(2)
    >>> torch.equal(normed(norm, torch.tensor([1.0, 3.0])), norm(torch.tensor([1.0, 3.0])))
    True
    """
    if type(norm) is not nn.LayerNorm:
        return norm(x)
    return torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def half_feed_forward(module, x):
    """``x`` (..., d_model) and half of Conformer's feed-forward module of it, without dropout.

    Arguments
    ---------
    module : torch.nn.Sequential
        Norm, SpeechBrain's PositionalwiseFeedForward, dropout.
    x : torch.Tensor

    Returns
    -------
    torch.Tensor
        Of the shape of ``x``.
    """
    norm, feed_forward, _ = module
    widen, activation, _, narrow = feed_forward.ffn
    inner = activate(activation, F.linear(normed(norm, x), widen.weight, widen.bias))
    return torch.add(x, F.linear(inner, narrow.weight, narrow.bias), alpha=0.5)


def decay_rates(block, name="A_log"):
    """The A of a Mamba block, (inner channels, states), made anew where its parameter has changed.

    Arguments
    ---------
    block : torch.nn.Module
    name : str
        Name of its parameter: ``A_log``, or ``A_b_log`` for the other direction.

    Returns
    -------
    torch.Tensor
        (inner channels, states).
    """
    parameter = getattr(block, name)
    now = (parameter.data_ptr(), None if parameter.is_inference() else parameter._version)
    kept = block.__dict__.setdefault("_kept_rates", {})
    if name not in kept or kept[name][0] != now or now[1] is None:
        numbers = parameter.detach()
        # with the numbers they were made of: no other ones can lie at the same address then
        kept[name] = (now, -torch.exp(numbers), numbers)
    return kept[name][1]


@lru_cache
def number_bits(number):
    """The bits of a number in double precision, as a 64-bit integer: how a kernel takes it."""
    return struct.unpack("q", struct.pack("d", number))[0]
