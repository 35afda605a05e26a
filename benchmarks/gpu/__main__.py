"""One stage of the check. ``benchmarks/gpu_check.sh`` calls it, with the paths set."""

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path

STAGES = ("prepare", "build", "parity", "speed", "train")


def parse(arguments=None):
    """Read the command line.

    Raises
    ------
    SystemExit
        If CUDA was asked for and there is none.
    """
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "--out", type=Path, default=Path("results/gpu_check"), help="folder for the tables"
    )
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu tries what can be tried without a card, at tiny sizes",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random tensors")
    parser.add_argument("--site", type=Path, help="where built packages lie (default: OUT/site)")
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    options.site = (options.site or options.out / "site").resolve()
    return options


def main(arguments=None):
    """Run one stage; its exit code."""
    options = parse(arguments)
    if options.stage == "prepare":
        return importlib.import_module("benchmarks.gpu.prepare").run(options)

    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"gpu_check {options.stage}: no CUDA device: run this on a machine with a card, or pass --device cpu "
            "for what can be tried without one"
        )
    from benchmarks.gpu.report import Report

    command = f"benchmarks/gpu_check.sh {options.stage} --device {options.device}"
    options.device = torch.device(options.device)
    options.report = partial(_report, Report, options, command)
    return importlib.import_module(f"benchmarks.gpu.{options.stage}").run(options)


def _report(kind, options, command, name, title):
    return kind(options.out, name, title, options.device, command)


if __name__ == "__main__":
    sys.exit(main())
