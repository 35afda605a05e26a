"""The least precision in which sums, exponentials and logarithms are computed, whatever the network runs in."""

import torch

_WIDE = (torch.float32, torch.float64)


def at_least_float32(tensor):
    """``tensor`` as it is in float64, else in float32.

    Example
    -------
    >>> import torch
    >>> x = torch.ones(2, dtype=torch.bfloat16)
    >>> at_least_float32(x).dtype, at_least_float32(x.double()).dtype
    (torch.float32, torch.float64)
    """
    # a conversion to what it is already costs a microsecond, and a step has four
    return tensor if tensor.dtype in _WIDE else tensor.float()
