"""The least time that a bidirectional scan can take: bytes over bandwidth, exponentials over their unit's rate.

Bytes count each tensor once; every state and frame takes one exponential in the forward pass and one again where
the backward pass recomputes it. A multiprocessor of capability 8.0 or 9.0 finishes 16 a clock.
"""

import statistics

import torch

from benchmarks.gpu.report import query_card

_EXPONENTIALS_A_CLOCK = 16


def ceilings(device):
    """Bytes a second of a large copy on this card, and exponentials a second at its highest clock.

    Returns
    -------
    (float, float) or None
        ``None`` without a card.
    """
    if device.type != "cuda":
        return None
    source = torch.randn(2**28, device=device)  # 1 GiB
    target = torch.empty_like(source)
    times = []
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    bandwidth = 2 * source.numel() * 4 / statistics.median(times[2:])
    clock = query_card("clocks.max.sm")
    if clock is None or not clock.isdigit():
        return None
    units = torch.cuda.get_device_properties(device).multi_processor_count
    return bandwidth, units * _EXPONENTIALS_A_CLOCK * int(clock) * 1e6


def work(shape, itemsize, backward):
    """Bytes and exponentials of both directions of a scan with their gate.

    Arguments
    ---------
    shape : tuple of int
        (batch, time, channels, states).
    itemsize : int
        Bytes of an element of what changes with time.
    backward : bool
        Forward and backward pass together.

    Returns
    -------
    (int, int)
    """
    batch, time, channels, states = shape
    wide, narrow = batch * time * channels, batch * time * states
    # u and delta of two directions, the gate, the output; B and C of two directions
    elements = 6 * wide + 4 * narrow
    exponentials = 2 * wide * states
    if backward:
        # those inputs again and the output's gradient, and a gradient of each input
        elements += 6 * wide + 4 * narrow + 5 * wide + 4 * narrow
        exponentials *= 2
    return elements * itemsize, exponentials


def share(milliseconds, shape, itemsize, backward, limits):
    """The floor's share of the time taken, in per cent, and which of the two ceilings sets the floor."""
    if limits is None or milliseconds is None:
        return ""
    moved, exponentials = work(shape, itemsize, backward)
    floors = {"bytes": moved / limits[0], "exp": exponentials / limits[1]}
    name = max(floors, key=floors.get)
    return f"{100 * floors[name] / (milliseconds / 1000):.0f} % ({name})"
