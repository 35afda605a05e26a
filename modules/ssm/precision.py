"""The least precision in which sums, exponentials and logarithms are computed, whatever the network runs in."""

import torch


def at_least_float32(tensor):
    """``tensor`` as it is in float64, else in float32.

    Example
    -------
    >>> import torch
    >>> x = torch.ones(2, dtype=torch.bfloat16)
    >>> at_least_float32(x).dtype, at_least_float32(x.double()).dtype
    (torch.float32, torch.float64)
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()
