"""One stage of the check. ``benchmarks/gpu_check.sh`` calls it, with the paths set."""

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.report import Report

STAGES = ("prepare", "build", "parity", "speed", "train")


def main(arguments=None):
    """Run one stage; its exit code."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, default=Path("results/gpu_check"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(arguments)
    stage = importlib.import_module(f"benchmarks.gpu.{options.stage}")
    if options.stage == "prepare":
        return stage.run()
    command = f"benchmarks/gpu_check.sh {options.stage} --device {options.device}"
    options.out, options.device = options.out.resolve(), torch.device(options.device)
    options.report = partial(Report, options.out, device=options.device, command=command)
    return stage.run(options)


if __name__ == "__main__":
    sys.exit(main())
