#!/usr/bin/env python3
"""Time and memory of a training step of the ConMamba encoder, with and without gradient checkpointing.

    python benchmarks/checkpointing.py [--batch 8x15] [--rounds 5] [--threads 2] [--out FOLDER]

The encoder has the published small size (Mamba-ASR, hparams/S2S/conmamba_small.yaml), random weights and
dropout 0.1; a step is its forward and backward pass in float32. Writes checkpointing.json, and the
table as checkpointing_step.json.
"""

import argparse
import statistics
import sys

import torch
from cells import conditions_table
from encoder import CHANNELS, FEED_FORWARD, KERNEL, LAYERS, MAMBA, batch_option, features
from measure import (
    Load,
    interleaved,
    machine,
    parse,
    peak_memory,
    publish,
    warn_if_busy,
)
from torch import nn

from mamba_speech.files import write_json
from modules.conmamba import ConmambaEncoder

PLAIN, CHECKPOINTED = "plain", "checkpointed"
_WRONG = 1e-4


def encoder(kind):
    """The encoder in training mode: ``PLAIN`` or ``CHECKPOINTED``.

    Example
    -------
    >>> encoder(CHECKPOINTED).gradient_checkpointing
    True
    """
    torch.manual_seed(0)
    return ConmambaEncoder(
        LAYERS,
        CHANNELS,
        FEED_FORWARD,
        KERNEL,
        activation=nn.GELU,
        dropout=0.1,
        mamba_config=MAMBA,
        gradient_checkpointing=kind == CHECKPOINTED,
    )


def step(module, x, seed=None):
    """Forward and backward pass; gradients of the weights, by name."""
    if seed is not None:
        torch.manual_seed(seed)
    module.zero_grad()
    module(x)[0].square().mean().backward()
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def check():
    """The largest difference between the two kinds' gradients with the same dropout, over each one's largest.

    Raises
    ------
    RuntimeError
        If it is more than rounding makes.
    """
    x = features(1, 2)
    plain, checkpointed = (step(encoder(kind), x, seed=1) for kind in (PLAIN, CHECKPOINTED))
    error = max(
        float((checkpointed[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-12))
        for name, grad in plain.items()
    )
    if not error <= _WRONG:  # not a number is wrong too
        raise RuntimeError(f"gradients with checkpointing differ by {error:.1e}")
    return error


def measure_time(batch, seconds, options):
    """Seconds of a step, the median by kind."""
    x = features(seconds, batch)
    modules = {kind: encoder(kind) for kind in (PLAIN, CHECKPOINTED)}
    functions = {kind: lambda module=module: step(module, x) for kind, module in modules.items()}
    times = interleaved(functions, options.rounds, budget=options.budget)
    return {kind: statistics.median(values) for kind, values in times.items()}


def measure_memory(batch, seconds, options):
    """Bytes that a step adds to the peak of a fresh process that has made one small step."""
    setup = (
        "import torch, checkpointing\n"
        f"torch.set_num_threads({options.threads})\n"
        "module = checkpointing.encoder({kind!r})\n"
        "checkpointing.step(module, checkpointing.features(1))\n"
    )
    work = f"checkpointing.step(module, checkpointing.features({seconds}, {batch}))"
    return {
        kind: peak_memory(setup.format(kind=kind), work, timeout=1800)
        for kind in (PLAIN, CHECKPOINTED)
    }


def table(result):
    """Training step with and without gradient checkpointing: time, and peak memory beyond the resting process."""
    batch = f"{result['batch']} x {result['audio']} s"
    plain = {name: result[name][PLAIN] for name in ("seconds", "bytes")}
    rows = []
    for kind in (PLAIN, CHECKPOINTED):
        seconds, used = result["seconds"][kind], result["bytes"][kind]
        rows.append(
            {
                "batch": batch,
                "encoder": kind,
                "ms a step": f"{1e3 * seconds:.0f}",
                "time / plain": f"{seconds / plain['seconds']:.2f}",
                "peak memory, MB": "-" if used is None else f"{used / 1e6:.0f}",
                "memory / plain": "-" if not used else f"{used / plain['bytes']:.3f}",
            }
        )
    return rows


def options_of(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batch", type=batch_option, default=(8, 15), help="utterances x seconds, as 8x15"
    )
    parser.add_argument(
        "--budget", type=float, default=60, help="seconds after which a kind gets no more turns"
    )
    return parse(parser, arguments, rounds=5)


def main(arguments=None):
    """Check, measure, print, and write the JSON files."""
    options = options_of(arguments)
    batch, seconds = options.batch
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    result |= {"batch": batch, "audio": seconds, "largest_difference_of_gradients": check()}
    load = Load()
    result["seconds"] = measure_time(batch, seconds, options)
    result["cores_used_by_others_during"] = load.others()
    result["bytes"] = measure_memory(batch, seconds, options)
    publish(table, result, options.out / "checkpointing_step.json")
    write_json(options.out / "checkpointing.json", result)
    write_json(options.out / "checkpointing_conditions.json", conditions_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
