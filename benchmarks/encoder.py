#!/usr/bin/env python3
"""Time and memory of a ConMamba encoder and of SpeechBrain's Conformer encoders, against the length of the audio.

    python benchmarks/encoder.py [--lengths 5 15 60 120 300] [--training 1x15 4x15] [--rounds 9] [--threads 2]
        [--budget 60] [--out FOLDER]

All encoders have the published small size (Mamba-ASR, hparams/S2S/conmamba_small.yaml and conformer_small.yaml)
and random weights; Conformer is SpeechBrain's own code, with the attention of the published recipes
(RelPosMHAXL) and with its fastest (RoPEMHA). The ceiling is the ConMamba encoder without its
scans and their short convolutions. Writes encoder.json, tables as encoder_*.json, and encoder.png.
"""

import argparse
import re
import statistics
import sys
from pathlib import Path

import torch
from encoder_tables import CEILING, OURS, RELATIVE, ROTARY, TABLES, plot
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
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.nnet.attention import RelPosEncXL
from torch import nn
from torch.nn import functional as F

from mamba_speech.files import write_json
from modules.conmamba import ConmambaEncoder
from modules.ssm import use_backend

# seconds of audio; at a hop of 10 ms and subsampling by 4 a second has 25 frames
LENGTHS = (5, 15, 60, 120, 300)
FRAMES_PER_SECOND = 25
TRAINED_BATCHES = ((1, 15), (4, 15))
_BATCH = re.compile(r"([1-9]\d*)x([1-9]\d*)")
LAYERS, CHANNELS, FEED_FORWARD, KERNEL, HEADS = 12, 144, 1024, 31, 4
MAMBA = {"d_state": 16, "expand": 2, "d_conv": 4, "bidirectional": True}
_WRONG = 1e-3


class ProjectionsOnly(nn.Module):
    """The projections of a bidirectional Mamba block, in its shapes, without what stands between them.

    Arguments
    ---------
    block : modules.ssm.BiMamba
        Its weights are used.
    """

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x, lengths=None, state=None, return_state=False):
        """(batch, time, d_model) in and out, as the block; the values mean nothing."""
        block = self.block
        inner = block.in_proj(x)[..., : block.d_inner]
        for x_proj, dt_proj in ((block.x_proj, block.dt_proj), (block.x_proj_b, block.dt_proj_b)):
            F.linear(x_proj(inner)[..., : block.dt_rank], dt_proj.weight)
        out = block.out_proj(inner)
        return (out, None) if return_state else out


def encoder(name, dropout=0.1):
    """An encoder in evaluation mode, and a function from (batch, time, channels) to its output.

    Arguments
    ---------
    name : str
        Of :mod:`encoder_tables`: ``OURS``, ``CEILING``, ``RELATIVE`` or ``ROTARY``.
    dropout : float
        The published recipes' by default.

    Example
    -------
    >>> _, run = encoder(OURS)
    >>> run(torch.randn(1, 20, CHANNELS)).shape
    torch.Size([1, 20, 144])
    """
    torch.manual_seed(0)
    if name in (OURS, CEILING):
        module = ConmambaEncoder(
            LAYERS,
            CHANNELS,
            FEED_FORWARD,
            KERNEL,
            activation=nn.GELU,
            dropout=dropout,
            mamba_config=MAMBA,
        ).eval()
        if name == CEILING:
            for layer in module.layers:
                layer.mamba = ProjectionsOnly(layer.mamba)
        return module, lambda x: module(x)[0]
    module = ConformerEncoder(
        LAYERS, CHANNELS, FEED_FORWARD, HEADS, KERNEL, dropout=dropout, attention_type=name
    ).eval()
    if name == ROTARY:
        return module, lambda x: module(x)[0]
    # a table of positions, made for every batch as TransformerASR does
    positions = RelPosEncXL(CHANNELS)
    return module, lambda x: module(x, pos_embs=positions(x))[0]


def features(seconds, batch=1):
    """What the front-end would give for so many seconds: random (batch, time, channels)."""
    return torch.randn(batch, FRAMES_PER_SECOND * seconds, CHANNELS)


def check(names):
    """Raise ``RuntimeError`` unless outputs are finite and ours are the same by the reference backend."""
    x = features(2)
    with torch.no_grad():
        for name in names:
            out = encoder(name)[1](x)
            if out.shape != x.shape or not out.isfinite().all():
                raise RuntimeError(f"{name}: output of shape {tuple(out.shape)}, or not finite")
        run = encoder(OURS)[1]
        with use_backend("naive"):
            expected = run(x)
        error = float((run(x) - expected).abs().max() / expected.abs().max())
    if not error <= _WRONG:  # not a number is wrong too
        raise RuntimeError(f"{OURS}: differs from the reference backend by {error:.1e}")
    return error


def fits(name, seconds):
    """Whether the machine's free memory holds the attention matrices that RelPosMHAXL makes and returns."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    # every layer's is kept till the end, and scores over 2 T - 1 positions are padded and shifted
    matrices = LAYERS + 8 if name == RELATIVE else 0
    return 4 * HEADS * (FRAMES_PER_SECOND * seconds) ** 2 * matrices < 1024 * available


def measure_forward(lengths, names, options):
    """Seconds of one forward pass without gradients, batch 1, one dict a length."""
    runs = {name: encoder(name)[1] for name in names}
    measured = []
    for seconds in lengths:
        x = features(seconds)
        possible = {name: run for name, run in runs.items() if fits(name, seconds)}
        for name in set(runs) - set(possible):
            print(f"{name} at {seconds} s: left out, too little free memory", file=sys.stderr)

        def call(run, x=x):
            with torch.no_grad():
                run(x)

        functions = {name: lambda run=run: call(run) for name, run in possible.items()}
        times = interleaved(functions, options.rounds, budget=options.budget)
        measured.append(
            {"audio": seconds, "seconds": {n: statistics.median(t) for n, t in times.items()}}
        )
    return measured


def measure_memory(lengths, names, options):
    """Bytes that one forward pass adds to the peak of a fresh process, one dict a length."""
    setup = (
        "import torch, encoder\n"
        f"torch.set_num_threads({options.threads})\n"
        "torch.set_grad_enabled(False)\n"
        "_, run = encoder.encoder({name!r})\n"
        "run(encoder.features(1))\n"
    )
    return [
        {
            "audio": seconds,
            "bytes": {
                name: peak_memory(setup.format(name=name), f"run(encoder.features({seconds}))")
                for name in names
                if fits(name, seconds)
            },
        }
        for seconds in lengths
    ]


def measure_training(batches, names, options):
    """Seconds of a forward and backward pass in training mode, one dict a batch."""
    models = {name: encoder(name) for name in names}
    for module, _ in models.values():
        module.train()
    measured = []
    for batch, seconds in batches:
        x = features(seconds, batch)

        def step(name, x=x):
            module, run = models[name]
            module.zero_grad()
            run(x).square().mean().backward()

        functions = {name: lambda name=name: step(name) for name in names}
        times = interleaved(functions, options.rounds, budget=options.budget)
        measured.append(
            {
                "batch": batch,
                "audio": seconds,
                "seconds": {n: statistics.median(t) for n, t in times.items()},
            }
        )
    return measured


def batch_option(text):
    """``4x15``, four utterances of 15 s, as numbers."""
    match = _BATCH.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is not utterances x seconds, as in 4x15")
    return int(match[1]), int(match[2])


def options_of(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--lengths", type=positive, nargs="+", default=list(LENGTHS), help="seconds of audio"
    )
    parser.add_argument(
        "--budget", type=float, default=60, help="seconds after which an encoder gets no more turns"
    )
    parser.add_argument(
        "--training",
        type=batch_option,
        nargs="*",
        default=list(TRAINED_BATCHES),
        help="batches of the training step: utterances x seconds, as 4x15",
    )
    return parse(parser, arguments, rounds=9)


def main(arguments=None):
    """Check, measure, print, and write the JSON files and the plot."""
    options = options_of(arguments)
    names = (OURS, RELATIVE, ROTARY)
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    result["difference_from_the_reference_backend"] = check((*names, CEILING))
    load = Load()
    result["forward"] = measure_forward(options.lengths, (*names, CEILING), options)
    result["training"] = measure_training(options.training, names, options)
    result["cores_used_by_others_during"] = load.others()
    result["memory"] = measure_memory(options.lengths, names, options)
    for name, table in TABLES.items():
        publish(table, result, options.out / f"encoder_{name}.json")
    write_json(options.out / "encoder.json", result)
    plot(result, options.out / "encoder.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
