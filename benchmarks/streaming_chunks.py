"""What a chunk costs: ConMamba's carried state against SpeechBrain's streaming Conformer; part of ``streaming.py``."""

import time

import torch
from streaming_models import RATE, ConformerStream, FrontEndStream

from mamba_speech.asr.session import percentile
from modules.asr.streaming_network import StreamingNetwork

# chunks of left context of the Conformer
CONTEXTS = (4, 32)


def streams(runs, chunk_size):
    """What is timed, by name: functions that take a chunk of samples (1, samples)."""
    frames = {}

    def add(name, stream):
        context = stream.make_streaming_context()
        frames[name] = lambda wavs: stream.forward_streaming(wavs, context)

    add("ConMamba over chunks", StreamingNetwork(*runs["chunked"], chunk_size=chunk_size))
    add("causal ConMamba", StreamingNetwork(*runs["causal"]))
    for kind in ("RoPEMHA", "RelPosMHAXL"):
        for context in CONTEXTS:
            stream = ConformerStream(*runs[kind], chunk_size, context)
            add(f"Conformer, {kind}, {context} chunks before", stream)
    add("front-end and CTC layer, of all", FrontEndStream(*runs["RoPEMHA"], chunk_size, 1))
    return frames


def time_chunks(runs, chunk_size, rounds):
    """Processor seconds of single chunks, by name; the streams take turns, chunk by chunk.

    Arguments
    ---------
    runs : dict
        Parts of the runs ``chunked``, ``causal``, ``RoPEMHA`` and ``RelPosMHAXL``.
    chunk_size : int
        Frames.
    rounds : int
        Chunks that are timed. Before them as many are heard as the longest left context holds.

    Returns
    -------
    dict
        ``p50``, ``p95`` and ``mean`` of each.
    """
    ways = streams(runs, chunk_size)
    hop = runs["chunked"][0].hop * 4
    generator, times = torch.Generator().manual_seed(0), {name: [] for name in ways}
    for number in range(max(CONTEXTS) + 1 + rounds):
        wavs = 0.1 * torch.randn(1, chunk_size * hop, generator=generator)
        for name, hear in ways.items():
            began = time.process_time()
            hear(wavs)
            if number > max(CONTEXTS):
                times[name].append(time.process_time() - began)
    return {
        name: {
            "p50": percentile(found, 50),
            "p95": percentile(found, 95),
            "mean": sum(found) / len(found),
            "chunk_seconds": chunk_size * hop / RATE,
        }
        for name, found in times.items()
    }
