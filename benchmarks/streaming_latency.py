"""Which samples a frame of a recogniser depends on, found by changing them; part of ``streaming.py``."""

import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
from streaming_models import RATE, log_probs_of

from modules.asr.streaming_network import StreamingNetwork

# log-probabilities that differ by less are the same: sums of other orders
SAME = 1e-5


def last_sample(parts, wavs, other, frame, chunks):
    """One more than the last sample that a frame depends on, found by bisection.

    Arguments
    ---------
    parts : tuple
        Features, normalisation, model.
    wavs, other : torch.Tensor
        (1, samples); samples from a place on are taken from the other.
    frame : int
    chunks : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig or None

    Returns
    -------
    int
    """
    wanted = log_probs_of(parts, wavs, chunks)[frame]

    def changes(place):
        changed = torch.cat([wavs[:, :place], other[:, place:]], 1)
        found = log_probs_of(parts, changed, chunks)[frame]
        return bool((found - wanted).abs().max() > SAME)

    least, most = 0, wavs.shape[1]
    while least < most:
        middle = (least + most) // 2
        least, most = (middle + 1, most) if changes(middle) else (least, middle)
    return least


def measure_latency(parts, chunk_size, seconds=6.0):
    """How long results wait, as told by the network and as found by changing samples.

    Arguments
    ---------
    parts : tuple
    chunk_size : int or None
        None of a causal encoder, and of one that hears the whole utterance.
    seconds : float
        Length of the noise.

    Returns
    -------
    dict
        ``told`` and ``found``, seconds from a frame's first sample to the last that it depends on, the most of all
        frames tried; ``front_end``, the seconds that a frame depends on behind its chunk's end.
    """
    generator = torch.Generator().manual_seed(0)
    wavs, other = 0.1 * torch.randn(2, 1, round(seconds * RATE), generator=generator)
    model = parts[2]
    causal = getattr(model.Transformer, "causal", False)
    chunks = None if chunk_size is None else DynChunkTrainConfig(chunk_size)
    hop = parts[0].hop * 2 ** len(model.CNN.strides)
    size = chunk_size or 1
    # the first and the last frame of a chunk in the middle
    first = (wavs.shape[1] // hop // 2) // size * size
    frames = sorted({first, first + size - 1})
    ends = {one: last_sample(parts, wavs, other, one, chunks) for one in frames}
    found = max(end - one * hop for one, end in ends.items()) / RATE
    whole = chunk_size is None and not causal
    result = {"found": None if whole else found, "hears_all": max(ends.values()) == wavs.shape[1]}
    if not whole:
        result["front_end"] = (max(ends.values()) - (first + size) * hop) / RATE
        result["told"] = size * hop / RATE
    return result


def told_latency(parts, chunk_size):
    """What a ConMamba's streaming network says of itself, in seconds."""
    return StreamingNetwork(*parts, chunk_size=chunk_size).latency / RATE
