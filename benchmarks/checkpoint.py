#!/usr/bin/env python3
"""Time to save a checkpoint of 100 MB that reaches the disk with checksums, against SpeechBrain's, which does not.

    python benchmarks/checkpoint.py [--rounds 15] [--folder FOLDER] [--out FOLDER]

A network of 8 million parameters and the state of its AdamW make the checkpoint. Both ways take turns. The ratio is the
median of each round's. Writes the table as checkpoint.json.
"""

import argparse
import datetime
import logging
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import Checkpointer

from mamba_speech.files import write_json
from training.checkpoints import AtomicCheckpointer

GOAL = 1.2


def trained():
    """A network and its optimiser after one step."""
    model = torch.nn.ModuleList(torch.nn.Linear(1000, 1000) for _ in range(8))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def seconds(kind, recoverables, folder):
    """Seconds that one checkpoint takes, and its size in MB."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        checkpointer = kind(place, recoverables)
        began = time.perf_counter()
        checkpointer.save_checkpoint(verbosity=logging.DEBUG)
        took = time.perf_counter() - began
        return took, sum(path.stat().st_size for path in Path(place).rglob("*.ckpt")) / 1e6


def main():
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="checkpoints of each kind")
    parser.add_argument("--folder", help="folder on the disk that is measured")
    parser.add_argument(
        "--out", type=Path, help="folder of the table, benchmarks/results by default"
    )
    options = parser.parse_args()
    recoverables, ways = trained(), {"before": Checkpointer, "durable": AtomicCheckpointer}
    rounds = []
    for _ in range(options.rounds + 1):
        took = {name: seconds(kind, recoverables, options.folder) for name, kind in ways.items()}
        rounds.append({name: value for name, (value, _) in took.items()})
        size = took["durable"][1]
    # the first one warms up
    rounds = rounds[1:]
    ratio = statistics.median(one["durable"] / one["before"] for one in rounds)
    row = {"MB": round(size), "rounds": len(rounds)}
    for name in ways:
        times = [1000 * one[name] for one in rounds]
        row[f"{name}, ms (least)"] = f"{statistics.median(times):.0f} ({min(times):.0f})"
    row |= {
        "ratio": f"{ratio:.2f}",
        "goal": f"at most {GOAL}",
        "met": "yes" if ratio <= GOAL else "no",
    }
    row |= {"load": f"{os.getloadavg()[0]:.1f}", "cores": len(os.sched_getaffinity(0))}
    row |= {"date": datetime.date.today().isoformat()}
    row |= {"command": f"`{shlex.join(['python', 'benchmarks/checkpoint.py', *sys.argv[1:]])}`"}
    print(row)
    out = options.out or Path(__file__).parent / "results"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "checkpoint.json", [row])


if __name__ == "__main__":
    main()
