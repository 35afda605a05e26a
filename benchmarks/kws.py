#!/usr/bin/env python3
"""Parameters, work, latency, throughput and memory of the keyword networks, all families in one run.

    python benchmarks/kws.py [--models mamba_mel_small retnet ...] [--lengths 1 5 15 30 60] [--rounds 15]
        [--threads 1 2] [--out FOLDER]

Networks have their recipes' sizes, 35 classes and random weights. The times include the features. A clip of over a
second stands for a recording that is not cut into windows: a network of variable length takes it whole. A network of
fixed length is built for that length. Writes kws.json, tables as kws_*.json, and kws.png.
"""

import argparse
import math
import statistics
import sys

import torch
from measure import (
    Load,
    add_out,
    interleaved,
    machine,
    peak_memory,
    positive,
    save_figure,
    warn_if_busy,
)
from torch.utils.flop_counter import FlopCounterMode

from mamba_speech.evaluation.tables import as_text
from mamba_speech.figures import line_style
from mamba_speech.files import write_json
from modules.kws.convolutional import KeywordCNN, MobileNetV2KeywordSpotter
from modules.kws.features import KeywordFeatures
from modules.kws.mamba import (
    mamba_mel_large,
    mamba_mel_medium,
    mamba_mel_small,
    mamba_mfcc_large,
    mamba_mfcc_medium,
    mamba_mfcc_small,
)
from modules.kws.retnet import RetNetKeywordSpotter
from modules.ssm import BiMamba, Mamba

RATE = 16000
LENGTHS = (1, 5, 15, 30, 60)
BATCH = 16
BASELINES = ("retnet", "mobilenetv2", "keyword_cnn")
# columns of the plot: the names of its networks, and what a reader calls them
GROUPS = {
    "Mamba-Mel": {
        "mamba_mel_small": "small",
        "mamba_mel_medium": "medium",
        "mamba_mel_large": "large",
        "mamba_mel_small_both_ways": "small, bidirectional",
        "mamba_mel_small_causal": "small, causal",
    },
    "Mamba-MFCC": {
        "mamba_mfcc_small": "small",
        "mamba_mfcc_medium": "medium",
        "mamba_mfcc_large": "large",
    },
    "Baselines": {"retnet": "RetNet", "mobilenetv2": "MobileNetV2", "keyword_cnn": "CNN"},
}
# name: kind of features, network for clips of so many frames
MODELS = {
    "mamba_mel_small": ("mel", lambda frames: mamba_mel_small()),
    "mamba_mel_medium": ("mel", lambda frames: mamba_mel_medium()),
    "mamba_mel_large": ("mel", lambda frames: mamba_mel_large()),
    "mamba_mel_small_both_ways": ("mel", lambda frames: mamba_mel_small(bidirectional=True)),
    "mamba_mel_small_causal": ("mel", lambda frames: mamba_mel_small(causal=True)),
    "mamba_mfcc_small": ("mfcc", lambda frames: mamba_mfcc_small()),
    "mamba_mfcc_medium": ("mfcc", lambda frames: mamba_mfcc_medium()),
    "mamba_mfcc_large": ("mfcc", lambda frames: mamba_mfcc_large()),
    "retnet": ("mel", lambda frames: RetNetKeywordSpotter()),
    "mobilenetv2": ("mel", lambda frames: MobileNetV2KeywordSpotter(n_frames=frames)),
    "keyword_cnn": ("mfcc", lambda frames: KeywordCNN(n_frames=frames)),
}


def build(name, seconds=1):
    """A family's network with its features, for clips of so many seconds.

    Arguments
    ---------
    name : str
        A key of :data:`MODELS`.
    seconds : float

    Returns
    -------
    (modules.kws.features.KeywordFeatures, torch.nn.Module)
        In evaluation mode.
    """
    kind, network = MODELS[name]
    torch.manual_seed(0)
    features = KeywordFeatures(kind, causal="causal" in name)
    model = network(features.frames(round(seconds * RATE)))
    return features.eval(), model.eval()


def classifier(name, seconds=1, batch=1):
    """A function without arguments that classifies noise of so many seconds, features included."""
    features, model = build(name, seconds)
    wavs = 0.1 * torch.randn(batch, round(seconds * RATE))
    wavs = wavs.contiguous()

    @torch.inference_mode()
    def classify():
        return model(*features(wavs))

    return classify


def multiply_accumulates(name, seconds=1):
    """Multiplications with addition of the network for one clip, features left out.

    torch counts them for matrices and convolutions. In a Mamba block it misses the short convolution (d_conv for a
    frame and channel) and the recurrence (three for a frame, channel and state), so they are added.

    Returns
    -------
    int
    """
    features, model = build(name, seconds)
    extra = []

    def count(block, arguments, _):
        frames = arguments[0].shape[1]
        ways = 2 if isinstance(block, BiMamba) else 1
        extra.append(ways * frames * block.d_inner * (3 * block.d_state + block.d_conv))

    for block in model.modules():
        if isinstance(block, Mamba):
            block.register_forward_hook(count)
    with torch.inference_mode():
        inputs = features(torch.randn(1, round(seconds * RATE)))
        with FlopCounterMode(display=False) as counter:
            model(*inputs)
    return counter.get_total_flops() // 2 + sum(extra)


def measure_memory(name, seconds):
    """Bytes by which classifying a clip raises the peak memory of a process that has built the network."""
    setup = "import torch; torch.set_num_threads(1); from kws import classifier\n"
    # a first call loads what is loaded once; its clip is short
    setup += f"classifier({name!r}, 0.2)(); classify = classifier({name!r}, {seconds})"
    return peak_memory(setup, "classify()")


def percentile(values, share):
    """The value under which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def measure(options):
    """All figures, for the JSON."""
    load = Load()
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    names = options.models
    result["models"] = {
        name: {
            "parameters": sum(p.numel() for p in build(name)[1].parameters()),
            "multiply_accumulates": multiply_accumulates(name),
        }
        for name in names
    }
    result["latency"], result["throughput"], result["clip_lengths"] = {}, {}, {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f"one clip, {threads} thread(s) ...", file=sys.stderr)
        times = interleaved({name: classifier(name) for name in names}, options.rounds)
        result["latency"][threads] = {
            name: {"median": statistics.median(t), "p95": percentile(t, 0.95), "calls": len(t)}
            for name, t in times.items()
        }
        times = interleaved(
            {name: classifier(name, batch=BATCH) for name in names}, max(3, options.rounds // 3)
        )
        result["throughput"][threads] = {
            name: BATCH / statistics.median(t) for name, t in times.items()
        }
    torch.set_num_threads(options.threads[0])
    for seconds in options.lengths:
        print(f"clips of {seconds} s ...", file=sys.stderr)
        functions = {name: classifier(name, seconds) for name in names}
        times = interleaved(functions, max(3, options.rounds // 3), budget=20)
        result["clip_lengths"][seconds] = {
            name: {"seconds": statistics.median(t), "bytes": measure_memory(name, seconds)}
            for name, t in times.items()
        }
    result["cores_used_by_others_during"] = load.others()
    result["claims"] = check_claims(result)
    return result


def check_claims(result):
    """What the published project claims, against this run.

    Returns
    -------
    dict
        ``memory_growth``: by which power of its length a clip's memory grows between the two longest lengths, 1 being
        linear; ``faster_than``: the baselines whose latency is longer, by network.
    """
    growth = {}
    lengths = sorted(result["clip_lengths"])
    if len(lengths) > 1:
        short, long = lengths[-2:]
        for name in result["models"]:
            few, many = (result["clip_lengths"][one][name]["bytes"] for one in (short, long))
            if few and many:
                growth[name] = math.log(many / few) / math.log(long / short)
    latency = next(iter(result["latency"].values()))
    mambas = [name for name in latency if name.startswith("mamba")]
    faster = {
        name: [
            other
            for other in BASELINES
            if other in latency and latency[name]["median"] < latency[other]["median"]
        ]
        for name in mambas
    }
    return {"memory_growth": growth, "faster_than": faster}


def tables(result):
    """Rows for Markdown, by the name of the table."""
    one, growth = [], []
    for name, size in result["models"].items():
        row = {"network": name, "parameters": size["parameters"]}
        row["M MACs a second"] = f"{size['multiply_accumulates'] / 1e6:.1f}"
        for threads, latency in result["latency"].items():
            label = f"{threads} thread{'s' if threads > 1 else ''}"
            times = latency[name]
            row[f"ms, {label}: median (p95)"] = (
                f"{1000 * times['median']:.1f} ({1000 * times['p95']:.1f})"
            )
            row[f"clips/s, {label}"] = f"{result['throughput'][threads][name]:.0f}"
        one.append(row)
        row = {"network": name}
        for seconds, figures in result["clip_lengths"].items():
            size = figures[name]["bytes"]
            memory = "?" if size is None else f"{size / 2**20:.0f}"
            row[f"{seconds} s: ms / MB"] = f"{1000 * figures[name]['seconds']:.0f} / {memory}"
        power = result["claims"]["memory_growth"].get(name)
        row["memory grows by length to the"] = "?" if power is None else f"{power:.2f}"
        growth.append(row)
    return {"latency": one, "lengths": growth}


def plot(result, path):
    """Draw time and memory over the clip's length, a column for each kind of network."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    groups = {
        title: {name: label for name, label in members.items() if name in result["models"]}
        for title, members in GROUPS.items()
    }
    groups = {title: members for title, members in groups.items() if members}
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, len(groups), sharex=True, sharey="row", squeeze=False)
    lengths = sorted(result["clip_lengths"])
    for column, (title, members) in zip(axes.T, groups.items(), strict=True):
        for index, (name, label) in enumerate(members.items()):
            rows = [result["clip_lengths"][seconds][name] for seconds in lengths]
            style = line_style(index) | {"label": label}
            column[0].plot(lengths, [1000 * row["seconds"] for row in rows], **style)
            if all(row["bytes"] for row in rows):
                column[1].plot(lengths, [row["bytes"] / 2**20 for row in rows], **style)
        column[0].set_title(title, loc="left")
        column[0].legend(frameon=False, fontsize=8)
        column[1].set_xlabel("length of the clip, s")
    axes[0, 0].set_ylabel("time, ms")
    axes[1, 0].set_ylabel("peak memory, MB")
    for one in axes.flat:
        one.set(xscale="log", yscale="log")
        one.set_xticks(lengths, lengths)
        one.minorticks_off()
        one.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        one.grid(color="0.92")
        one.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def options_of(arguments=None):
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--lengths", nargs="+", type=positive, default=LENGTHS, help="seconds")
    parser.add_argument("--rounds", type=positive, default=15, help="turns of each network")
    parser.add_argument("--threads", nargs="+", type=positive, default=[1, 2])
    add_out(parser)
    return parser.parse_args(arguments)


def main():
    """Measure, write, print."""
    options = options_of()
    result = measure(options)
    write_json(options.out / "kws.json", result)
    for name, rows in tables(result).items():
        write_json(options.out / f"kws_{name}.json", rows)
        print(as_text(rows), end="\n\n")
    plot(result, options.out / "kws.png")
    for name, others in result["claims"]["faster_than"].items():
        print(f"{name} is faster than: {', '.join(others) or 'none of the baselines'}")


if __name__ == "__main__":
    main()
