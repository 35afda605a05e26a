"""Masks from frame counts, shared by every operation that has to leave padding out."""

import torch


def valid_frames(lengths, time, device):
    """Boolean mask ``(batch, time)``, true on frames before each length; ``None`` for ``lengths=None``."""
    if lengths is None:
        return None
    return torch.arange(time, device=device) < lengths.to(device).unsqueeze(1)


def keep_valid(x, valid):
    """``x`` (batch, time, ...) with zeros on invalid frames, whatever stood there (NaN included)."""
    if valid is None or x is None:
        return x
    return x.masked_fill(~valid.reshape(*valid.shape, *[1] * (x.dim() - 2)), 0.0)
