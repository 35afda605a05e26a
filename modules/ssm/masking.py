"""Masks from frame counts, shared by every operation that has to leave padding out."""

import torch


def check_lengths(lengths, batch, time):
    """Raise ``ValueError`` unless ``lengths`` is an integer tensor ``(batch,)`` within ``0..time``.

    Values are read only where that costs no synchronisation, that is on the CPU, and not while a compiler
    or an exporter looks, which could not go on from there in one graph.
    """
    if lengths is None:
        return
    if (
        not isinstance(lengths, torch.Tensor)
        or lengths.dtype.is_floating_point
        or lengths.dtype == torch.bool
    ):
        raise ValueError(
            "lengths must be an integer tensor of frame counts; SpeechBrain's relative lengths are "
            "counted with modules.lengths (sample_counts, then fbank_frames and strided_frames)"
        )
    if lengths.shape != (batch,):
        raise ValueError(
            f"lengths must have shape ({batch},), one a batch item; got {tuple(lengths.shape)}"
        )
    if (
        lengths.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and batch
        and not 0 <= int(lengths.min()) <= int(lengths.max()) <= time
    ):
        raise ValueError(
            f"lengths must lie in 0..{time}, the number of frames; got {lengths.tolist()}"
        )


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
