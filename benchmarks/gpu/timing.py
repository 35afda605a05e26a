"""Times and peak memory of functions, interleaved, on a card or on the CPU."""

import statistics
import time

import torch


def measure(functions, device, rounds, deadline=None):
    """Time functions in turn, so that whatever else the machine does falls on all of them alike.

    Arguments
    ---------
    functions : dict of str: callable
    device : torch.device
    rounds : int
        Timed calls of each, after two calls to warm up.
    deadline : float, optional
        ``time.monotonic()`` after which no further function is begun.

    Returns
    -------
    dict of str: dict
        ``ms`` (median), ``least`` and ``MiB`` (peak above what was allocated before, a card's only); or
        ``error``, if the function raised.
    """
    found = {}
    for name, function in functions.items():
        if deadline is not None and time.monotonic() > deadline:
            found[name] = {"error": "not reached before the time was up"}
            continue
        try:
            function()
            found[name] = {"times": [], "MiB": _peak(function, device)}
        except Exception as problem:  # noqa: BLE001 - what does not compile or fit is a row
            found[name] = {"error": f"{type(problem).__name__}: {str(problem)[:150]}"}
    for _ in range(rounds):
        for name, function in functions.items():
            if "times" in found[name]:
                found[name]["times"].append(_milliseconds(function, device))
    for row in found.values():
        times = row.pop("times", None)
        if times:
            row["ms"], row["least"] = statistics.median(times), min(times)
    return found


def _peak(function, device):
    if device.type != "cuda":
        function()
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _milliseconds(function, device):
    if device.type != "cuda":
        began = time.perf_counter()
        function()
        return 1000 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
