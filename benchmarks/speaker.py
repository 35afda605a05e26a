#!/usr/bin/env python3
"""Parameters, work, time and memory of the students of speaker verification, all kinds of layers in one run.

    python benchmarks/speaker.py [--models sv_mixer bimamba ...] [--lengths 1 3 10 30 60] [--layers 12] [--rounds 5]
        [--threads 2] [--quick] [--out FOLDER]

A single layer at 149 frames, a student for a crop of 3 s, and a student's embedding of longer utterances. Students of
fixed length read these in crops whose embeddings are averaged, as they are used. Weights are random. Writes
speaker.json, tables as speaker_*.json, and speaker.png. ``--quick`` measures tiny students, to see that it runs.
"""

import argparse
import functools
import statistics
import sys

import torch
from measure import Load, interleaved, machine, parse, peak_memory, positive, publish, warn_if_busy
from speaker_models import (
    CROP,
    NAMES,
    RATE,
    build_layer,
    build_student,
    layer_work,
    parameters,
    student_work,
)
from speaker_tables import TABLES, plot

from mamba_speech.files import write_json
from mamba_speech.speaker.embedding import embed_waveform

LENGTHS = (1, 3, 10, 30, 60)
# seconds that a student gets for the utterances of one length before it has no further turn
_BUDGET = 20.0
# percentage points by which a claim may be missed and still hold: what rounding of the paper's figures makes
_ROUNDING = 0.5


def layer_call(name, size):
    """A function without arguments that runs a layer on the frames of a crop."""
    layer, x = build_layer(name, size)
    lengths = torch.tensor([x.shape[1]])

    @torch.inference_mode()
    def call():
        return layer(x, lengths)

    return call


@functools.cache
def _student(name, size, layers):
    return build_student(name, size, layers)


def embed_call(name, size, layers, seconds):
    """A function without arguments that embeds noise of so many seconds."""
    model = _student(name, size, layers)
    wav = 0.1 * torch.randn(round(seconds * RATE))
    return lambda: embed_waveform(model, wav)


def layer_memory(name, size, threads):
    """Bytes by which a layer raises the peak memory of a process that has built it."""
    setup = f"import torch; torch.set_num_threads({threads}); from speaker import layer_call\n"
    # the little layer loads what is loaded once
    setup += f"layer_call({name!r}, 'quick')(); call = layer_call({name!r}, {size!r})"
    return peak_memory(setup, "call()")


def student_memory(name, size, layers, seconds, threads):
    """Bytes by which embedding an utterance raises the peak memory of a process that has built the student."""
    setup = f"import torch; torch.set_num_threads({threads}); from speaker import embed_call\n"
    setup += f"embed_call({name!r}, 'quick', 1, 1)()\n"
    setup += f"call = embed_call({name!r}, {size!r}, {layers}, {seconds})"
    return peak_memory(setup, "call()")


def measure_layers(options, size):
    """Figures of one layer of each kind, by name."""
    calls = {name: layer_call(name, size) for name in options.models}
    # a call takes a hundredth of a second
    times = interleaved(calls, 10 * options.rounds)
    result = {}
    for name, seconds in times.items():
        work, without = layer_work(name, size)
        result[name] = {
            "parameters": parameters(build_layer(name, size)[0]),
            "work": work,
            "work_without_weights": without,
            "seconds": statistics.median(seconds),
            "calls": len(seconds),
            "bytes": layer_memory(name, size, options.threads),
        }
    return result


def measure_students(options, size):
    """Figures of each student and a crop, by name."""
    calls = {name: embed_call(name, size, options.layers, CROP) for name in options.models}
    times = interleaved(calls, options.rounds)
    result = {}
    for name, seconds in times.items():
        student = _student(name, size, options.layers)
        work, without = student_work(name, size, options.layers)
        result[name] = {
            "parameters": parameters(student),
            "work": work,
            "work_without_weights": without,
            "any_length": student.crop_samples is None,
            "seconds": statistics.median(seconds),
            "least": min(seconds),
            "calls": len(seconds),
        }
    return result


def measure_lengths(options, size):
    """Time and memory of each student and utterances of each length: by length, then by name."""
    result = {}
    for length in options.lengths:
        print(f"utterances of {length} s ...", file=sys.stderr)
        calls = {name: embed_call(name, size, options.layers, length) for name in options.models}
        times = interleaved(calls, max(1, options.rounds // 2), budget=_BUDGET)
        result[length] = {
            name: {
                "seconds": statistics.median(seconds),
                "calls": len(seconds),
                "bytes": student_memory(name, size, options.layers, length, options.threads),
            }
            for name, seconds in times.items()
        }
    return result


def check_claims(layers):
    """What the paper says of SV-Mixer's layer beside the Transformer's, against these layers.

    A claim holds if the saving here is at least the paper's, less what rounding makes.

    Returns
    -------
    list of dict
        Empty unless both layers were measured.
    """
    if not {"sv_mixer", "transformer"} <= set(layers):
        return []
    claims = []
    for claim, key, paper in (
        ("a layer has fewer parameters", "parameters", 55.0),
        ("a layer computes less", "work", 49.6),
    ):
        here = 100 * (1 - layers["sv_mixer"][key] / layers["transformer"][key])
        claims.append(
            {"claim": claim, "paper": paper, "here": here, "holds": here >= paper - _ROUNDING}
        )
    return claims


def measure(options):
    """All figures, for the JSON."""
    load, size = Load(), "quick" if options.quick else "large"
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    result |= {"size": size, "n_layers": options.layers}
    print("layers ...", file=sys.stderr)
    result["layers"] = measure_layers(options, size)
    print("students ...", file=sys.stderr)
    result["students"] = measure_students(options, size)
    result["lengths"] = measure_lengths(options, size)
    # the paper speaks of layers of width 1024
    result["claims"] = [] if options.quick else check_claims(result["layers"])
    result["cores_used_by_others_during"] = load.others()
    return result


def options_of(arguments=None):
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--lengths", nargs="+", type=positive, default=LENGTHS, help="seconds")
    parser.add_argument("--layers", type=positive, default=12, help="of a student")
    parser.add_argument("--quick", action="store_true", help="tiny students of two layers")
    options = parse(parser, arguments, rounds=5, threads=2)
    if options.quick:
        options.layers = 2
    return options


def main():
    """Measure, write, print."""
    options = options_of()
    result = measure(options)
    write_json(options.out / "speaker.json", result)
    for name, table in TABLES.items():
        publish(table, result, options.out / f"speaker_{name}.json")
    plot(result, options.out / "speaker.png")


if __name__ == "__main__":
    main()
