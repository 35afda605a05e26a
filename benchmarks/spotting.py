#!/usr/bin/env python3
"""What it costs to listen: work for a second of audio, windows run anew against a state that is carried.

    python benchmarks/spotting.py [--hops 0.5 0.1 0.032] [--rounds 5] [--out FOLDER]

The networks are of Mamba-Mel's small size with random weights, features included. A window of a second is classified
as often as the hop says, or the causal network reads blocks of that length along the stream. Both as they come from a
microphone, one at a time. Writes spotting.json and spotting_cost.json.
"""

import argparse
import statistics

import torch
from measure import Load, interleaved, machine, parse, warn_if_busy

from mamba_speech.arguments import number
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import write_json
from modules.kws.features import KeywordFeatures
from modules.kws.mamba import mamba_mel_small
from modules.kws.retnet import RetNetKeywordSpotter

RATE = 16000
# 0.032 s is two frames of the network: the least that changes its answer
HOPS = (0.5, 0.1, 0.032)
SECONDS = 4


def by_windows(features, model, hop):
    """A function that classifies a second's window every ``hop`` seconds of :data:`SECONDS`."""
    wavs = 0.1 * torch.randn(RATE * (SECONDS + 1))
    step = round(hop * RATE)

    @torch.inference_mode()
    def listen():
        for end in range(RATE + step, RATE * (SECONDS + 1) + 1, step):
            model(*features(wavs[None, end - RATE : end]))

    return listen


def by_blocks(features, model, hop):
    """A function that gives a causal network the next :data:`SECONDS` of a stream in blocks of ``hop`` seconds."""
    wavs = 0.1 * torch.randn(1, RATE * SECONDS)
    window = RATE // (features.hop_length * model.subsampling)

    @torch.inference_mode()
    def listen():
        heard, state = features.initial_state(1), model.initial_state(1, window=window)
        for block in wavs.split(round(hop * RATE), dim=1):
            new, heard = features.forward_chunk(block, heard)
            if new.shape[1]:
                _, state = model.stream(new, state)

    return listen


def functions(hop):
    """What is timed, by name."""
    torch.manual_seed(0)
    plain, causal = KeywordFeatures().eval(), KeywordFeatures(causal=True).eval()
    streaming = mamba_mel_small(causal=True).eval()
    return {
        "causal Mamba-Mel small, carried state": by_blocks(causal, streaming, hop),
        "causal Mamba-Mel small, windows": by_windows(causal, streaming, hop),
        "Mamba-Mel small, windows": by_windows(plain, mamba_mel_small().eval(), hop),
        "RetNet, windows": by_windows(plain, RetNetKeywordSpotter().eval(), hop),
    }


def measure(options):
    """All figures, for the JSON: seconds of work for a second of audio, by hop and way."""
    load = Load()
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy(), "work": {}}
    for hop in options.hops:
        times = interleaved(functions(hop), options.rounds, budget=120)
        result["work"][hop] = {
            name: statistics.median(rows) / SECONDS for name, rows in times.items()
        }
    result["cores_used_by_others_during"] = load.others()
    return result


def table(result):
    """Rows for Markdown: milliseconds of work for a second of audio."""
    names = next(iter(result["work"].values()))
    return [
        {"ms for a second of audio": name}
        | {
            f"every {1000 * hop:g} ms": f"{1000 * row[name]:.1f}"
            for hop, row in result["work"].items()
        }
        for name in names
    ]


def main():
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--hops", nargs="+", type=number(0.02, 1), default=HOPS, help="seconds, 0.02 to 1"
    )
    options = parse(parser, None, rounds=5, threads=1)
    wrong = [hop for hop in options.hops if not 0.02 <= hop <= 1]
    if wrong:
        parser.error(f"--hops: {wrong[0]:g} is not from 0.02 to 1 second")
    result = measure(options)
    write_json(options.out / "spotting.json", result)
    write_json(options.out / "spotting_cost.json", table(result))
    print(as_text(table(result)))


if __name__ == "__main__":
    main()
