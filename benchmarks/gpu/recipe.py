"""Run a training script unchanged and leave the process's peak of a card's memory behind.

python -m benchmarks.gpu.recipe MEMORY.json SCRIPT [arguments of the script]
"""

import json
import runpy
import sys
from pathlib import Path

import torch

from benchmarks.gpu.report import write_atomically


def main():
    """Run the script as ``__main__``, then write the peak."""
    target, script = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        peak = None
        if torch.cuda.is_available():
            peak = round(torch.cuda.max_memory_allocated() / 2**20)
        write_atomically(Path(target), json.dumps({"peak_mib": peak}) + "\n")


if __name__ == "__main__":
    main()
