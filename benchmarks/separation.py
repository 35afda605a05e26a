#!/usr/bin/env python3
"""Time and memory of separation networks of like size, in training and in use, against the length of the mixture.

    python benchmarks/separation.py [--size XS] [--lengths 4 16 60] [--rounds 5] [--threads 2] [--budget 180]
        [--memory GB] [--networks Mamba-TasNet DPMamba ...] [--out FOLDER]

Mamba-TasNet and dual-path Mamba stand beside SpeechBrain's SepFormer as it is and with fused attention, one mixture of
two speakers at 8 kHz, float32, random weights; a training step is forward pass, SI-SNR of the best order and backward
pass. What would take longer than the budget or more memory than is free is left out and named. A causal
Mamba-TasNet is timed along a stream. Writes separation.json, tables as separation_*.json, and separation.png.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from measure import (
    Load,
    interleaved,
    machine,
    parse,
    peak_memory,
    positive,
    publish,
    warn_if_busy,
)
from separation_models import (
    CAUSAL,
    FUSED,
    KERNEL,
    NAMES,
    RATE,
    SEPFORMER,
    SIZES,
    SPEAKERS,
    build,
    mixture,
    parameters,
)
from separation_tables import INFERENCE, PASSES, TABLES, TRAINING, plot

from mamba_speech.files import write_json
from modules.separation.si_snr import pit_si_snr
from modules.separation.streaming import StreamingSeparator
from modules.ssm import use_backend

LENGTHS = (4, 16, 60)
BLOCKS_MS = (10, 100, 1000)
STREAMED_BLOCKS = 50
_WRONG = 1e-3
# a call that loads what is loaded once or measures memory, an untimed and a timed one
_CALLS = 3
# of the memory that is free, for other programs to grow
_SHARE = 0.8

# what Python, torch, C++ and the system say
_OUT_OF_MEMORY = ("MemoryError", "allocate memory", "bad_alloc", "signal 9")


def runner(name, size, which):
    """A function of targets (1, time, speakers) that separates their sum, or makes a training step with it.

    Arguments
    ---------
    name, size : str
        Of :mod:`separation_models`.
    which : str
        ``INFERENCE`` or ``TRAINING``.

    Example
    -------
    >>> runner(TASNET, "mini", TRAINING)(targets(0.1))
    """
    model = build(name, size)
    model.train(which == TRAINING)

    def run(sources):
        mix = sources.sum(-1)
        if which == INFERENCE:
            with torch.no_grad():
                model(mix)
            return
        model.zero_grad()
        ratio, _ = pit_si_snr(model(mix), sources)
        ratio.neg().mean().backward()

    return run


def targets(seconds):
    """Noise in place of the speakers: (1, time, speakers)."""
    return 0.1 * torch.randn(1, round(seconds * RATE), SPEAKERS)


def check(size, names):
    """Largest differences over the largest output: to the reference backend, and between SepFormer's attentions.

    Raises
    ------
    RuntimeError
        If one is more than rounding makes, or an output is not finite.
    """
    mix, errors = mixture(0.5), {}
    with torch.no_grad():
        for name in names:
            out = build(name, size)(mix)
            if out.shape != (1, mix.shape[1], SPEAKERS) or not out.isfinite().all():
                raise RuntimeError(f"{name}: output of shape {tuple(out.shape)}, or not finite")
            with use_backend("naive"):
                expected = build(SEPFORMER if name == FUSED else name, size)(mix)
            errors[name] = _difference(out, expected)
            if not errors[name] <= _WRONG:  # not a number is wrong too
                raise RuntimeError(f"{name}: differs by {errors[name]:.1e}")
    return errors


def _difference(value, expected):
    return float((value - expected).abs().max() / expected.abs().max())


def predicted(measured, seconds):
    """What a length would take, from shorter ones: a linear and a quadratic part through the last two.

    Arguments
    ---------
    measured : list of (float, float)
        Lengths and what was measured, ascending; ``None`` values are passed over.
    seconds : float

    Returns
    -------
    float
        Zero if nothing was measured.

    Example
    -------
    >>> predicted([(2, 6), (4, 20)], 8), predicted([(2, 6)], 8), predicted([(2, 6), (4, 10)], 8)
    (72.0, 24.0, 20.0)
    """
    known = [(length, value) for length, value in measured if value is not None]
    if not known:
        return 0.0
    length, value = known[-1]
    quadratic = 0.0
    if len(known) > 1:
        shorter, less = known[-2]
        growth = (value / length - less / shorter) / (length - shorter)
        quadratic = min(max(growth, 0.0), value / length**2)
    return (value / length - quadratic * length) * seconds + quadratic * seconds**2


def free_memory():
    """Bytes that a cell may take, most of what is free; ``None`` off Linux."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return int(1024 * _SHARE * free)


def why_not(row, earlier, budget, memory):
    """Why a cell is left out, or ``None``: three calls over the budget, or more memory than it may take.

    Arguments
    ---------
    row : dict
        The cell, with ``audio``.
    earlier : list of dict
        Cells of the same network and pass at shorter lengths.
    budget : float
        Seconds.
    memory : int or None
        Bytes.

    Returns
    -------
    str or None
        Begins with ``budget`` or ``memory``.
    """
    seconds, needed = (
        predicted([(one["audio"], one[unit]) for one in earlier], row["audio"])
        for unit in ("seconds", "bytes")
    )
    if _CALLS * seconds > budget:
        return f"budget: {_CALLS} calls would take about {_CALLS * seconds:.0f} s"
    if memory is not None and needed > memory:
        return f"memory: about {needed / 1e9:.1f} GB are needed, {memory / 1e9:.1f} GB may be used"
    return None


def measure_memory(name, which, seconds, options):
    """Bytes that one call adds to the peak of a fresh process, and why there is no figure if there is none.

    The process is held to what it may take, so that a wrong forecast does not end other programs.
    """
    most = options.memory
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_DATA, ({most}, {most}))\n"
    setup = (
        f"import torch, separation\ntorch.set_num_threads({options.threads})\n"
        f"run = separation.runner({name!r}, {options.size!r}, {which!r})\n"
        f"run(separation.targets(0.2))\nsources = separation.targets({seconds})\n"
    )
    try:
        setup = setup if most is None else limit + setup
        return peak_memory(setup, "run(sources)", timeout=options.budget + 120), None
    except subprocess.TimeoutExpired:
        return None, f"budget: one call took longer than {options.budget} s"
    except RuntimeError as error:
        if not any(
            word in str(error)
            for word in ("allocate memory", "MemoryError", "bad_alloc", "signal 9")
        ):
            raise
        return None, f"memory: one call asked for more than {most / 1e9:.1f} GB"


def measure_length(which, seconds, runs, earlier, options):
    """One pass over one length, a dict a network; those that are left out have ``skipped``.

    What is no length of the options is timed once, for the forecasts alone.
    """
    asked = seconds in options.lengths
    rows = []
    for name in runs:
        row = {"pass": which, "audio": seconds, "network": name}
        row |= {"seconds": None, "least": None, "calls": 0, "bytes": None}
        shorter = [one for one in earlier if one["network"] == name]
        row["skipped"] = why_not(row, shorter, options.budget, options.memory)
        if row["skipped"] is None and asked:
            row["bytes"], row["skipped"] = measure_memory(name, which, seconds, options)
        if row["skipped"] is not None:
            print(f"{name}, {which} at {seconds} s, left out: {row['skipped']}", file=sys.stderr)
        rows.append(row)
    sources = targets(seconds)
    functions = {
        row["network"]: lambda run=runs[row["network"]]: run(sources)
        for row in rows
        if row["skipped"] is None
    }
    times = interleaved(functions, options.rounds if asked else 1, budget=options.budget)
    for row in rows:
        if row["network"] in times:
            calls = times[row["network"]]
            row |= {"seconds": statistics.median(calls), "least": min(calls), "calls": len(calls)}
    return rows


def measure_pass(which, options):
    """All lengths of one pass, after half of the shortest."""
    runs = {name: runner(name, options.size, which) for name in options.networks}
    rows = []
    for seconds in (min(options.lengths) / 2, *sorted(options.lengths)):
        print(f"{which}, {seconds:g} s ...", file=sys.stderr)
        rows += measure_length(which, seconds, runs, rows, options)
    return [row for row in rows if row["audio"] in options.lengths]


@torch.no_grad()
def measure_stream(options):
    """A causal Mamba-TasNet along a stream, one dict a length of the blocks."""
    model = build(CAUSAL, options.size)
    stream = StreamingSeparator(model)
    rows = []
    for block_ms in BLOCKS_MS:
        block = round(block_ms * RATE / 1000)
        mix = mixture(STREAMED_BLOCKS * block / RATE)
        state, sources, times, busy = stream.initial_state(1), [], [], []
        for samples in mix.split(block, dim=1):
            start, used = time.perf_counter(), time.process_time()
            ready, state = stream.push(samples, state)
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - used)
            sources.append(ready)
        sources = torch.cat([*sources, stream.finish(state)], dim=1)
        rows.append(
            {
                "block_ms": block_ms,
                "latency_ms": 1000 * KERNEL / RATE,
                "seconds": statistics.median(times),
                "processor_seconds": statistics.median(busy),
                "p95": statistics.quantiles(times, n=20)[-1],
                "blocks": len(times),
                "difference_from_the_whole": _difference(sources, model(mix)),
            }
        )
    return rows


def options_of(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", choices=SIZES, default="XS", help="of all networks (default: %(default)s)"
    )
    parser.add_argument(
        "--networks",
        choices=NAMES,
        nargs="+",
        default=list(NAMES),
        metavar="NAME",
        help=f"which of {', '.join(map(repr, NAMES))}",
    )
    parser.add_argument(
        "--lengths", type=positive, nargs="+", default=list(LENGTHS), help="seconds of audio"
    )
    parser.add_argument(
        "--budget",
        type=positive,
        default=180,
        help="seconds that a cell may take, else it is skipped",
    )
    parser.add_argument(
        "--memory", type=gigabytes, help="GB that a cell may take (default: most of what is free)"
    )
    options = parse(parser, arguments, rounds=5)
    options.memory = options.memory or free_memory()
    return options


def gigabytes(text):
    """An option's size, as bytes."""
    size = float(text)
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return int(1e9 * size)


def main(arguments=None):
    """Check, measure, print, and write the JSON files and the plot."""
    options = options_of(arguments)
    started = time.perf_counter()
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    result |= {"size": options.size, "sample_rate": RATE, "speakers": SPEAKERS}
    result["parameters"] = {
        name: parameters(name, options.size) for name in (*options.networks, CAUSAL)
    }
    result["differences"] = check(options.size, options.networks)
    load = Load()
    result["stream"] = measure_stream(options)
    result["cells"] = [row for which in PASSES for row in measure_pass(which, options)]
    result["cores_used_by_others_during"] = load.others()
    result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    for name, table in TABLES.items():
        publish(table, result, options.out / f"separation_{name}.json")
    write_json(options.out / "separation.json", result)
    plot(result, options.out / "separation.png")
    print(f"\n{result['minutes']} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
