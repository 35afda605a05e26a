"""From SpeechBrain's relative lengths to counts of samples and frames, once, at the door.

SpeechBrain hands lengths around as fractions of the longest utterance and rounds ``fraction * frames`` wherever
it needs a count. After a front-end with strides that is off by one for many pairs of lengths, so that
an utterance's result depends on its neighbours in the batch. Here samples are counted once and every
later count follows from them by the arithmetic of the layer that changes it.
"""

import torch

from modules.ssm.precision import at_least_float32


def sample_counts(relative, samples):
    """Samples of each utterance, from its length relative to a batch that is ``samples`` long.

    Exact for anything under about four minutes at 16 kHz (float32 has 24 bits).

    Example
    -------
    >>> import torch
    >>> sample_counts(torch.tensor([1.0, 0.5]), 16000).tolist()
    [16000, 8000]
    """
    return (at_least_float32(relative) * samples).round().long().clamp(max=samples)


def fbank_frames(samples, hop):
    """Frames of a centred short-time Fourier transform with ``hop`` samples between frames."""
    return torch.div(samples, hop, rounding_mode="floor") + 1


def strided_frames(lengths, stride):
    """Frames after a convolution of kernel 3 and one frame of padding on each side."""
    return torch.div(lengths + stride - 1, stride, rounding_mode="floor")


def reflected_indices(lengths, time, edge):
    """Indices that reflect each of several sequences at its own two ends, as ``edge`` more frames on each side.

    A sequence shorter than the edge is reflected again and again; one frame stands for all.

    Arguments
    ---------
    lengths : torch.Tensor
        (batch,) integer counts of at least 1.
    time : int
        Frames of the batch.
    edge : int
        Frames that are added on each side.

    Returns
    -------
    torch.Tensor
        (batch, time + 2 * edge), for ``torch.gather`` along time.

    Example
    -------
    >>> import torch
    >>> reflected_indices(torch.tensor([4, 2]), 4, 2).tolist()
    [[2, 1, 0, 1, 2, 3, 2, 1], [0, 1, 0, 1, 0, 1, 0, 1]]
    """
    index = torch.arange(-edge, time + edge, device=lengths.device)
    last = (lengths - 1).unsqueeze(1)
    period = (2 * last).clamp(min=1)
    index = index.remainder(period)
    index = torch.minimum(index, period - index).clamp(min=0)
    return torch.minimum(index, last)


def relative_lengths(lengths, time):
    """Counts as fractions of ``time``, for SpeechBrain's functions that take nothing else.

    A quarter of a frame is taken off, so that ``round(fraction * time)`` and ``index < fraction * time`` both find
    ``lengths`` again, whatever the rounding of the division.

    Example
    -------
    >>> import torch
    >>> lengths = torch.arange(1, 998)
    >>> bool(((relative_lengths(lengths, 997) * 997).round() == lengths).all())
    True
    """
    return (lengths - 0.25) / time
