#!/usr/bin/env python3
"""Memory of a command over thousands of short recordings of many lengths and sample rates.

    python benchmarks/soak.py transcribe RUN [--files 5000] [--first 500] [--folder FOLDER] [--out FILE.json]

Recordings of half a second to one and a half are written, at 50 sample rates, mono and stereo. Files that an earlier
run left in the folder are used again. While `mamba-speech transcribe RUN FOLDER` (or `spot`, `embed`) works, its
resident memory is read often, and the file that it has open says how far it is. Memory that is kept is the least that
was seen within each 500 files. The exit status is 1 if that grows by over 20 MB after the first 500. Linux only.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from mamba_speech.files import write_json

GOAL = 20
DEVICES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)


def write_files(folder, count):
    """Noise of 0.5 to 1.5 s; the same for the same count of files before it."""
    random = np.random.default_rng(0)
    rates = [*DEVICES, *np.exp(random.uniform(np.log(4000), np.log(100_000), 40)).astype(int)]
    for number in range(count):
        path = folder / f"{number:05d}.wav"
        rate = int(rates[number % len(rates)])
        samples = round(rate * random.uniform(0.5, 1.5))
        noise = random.standard_normal((samples, 1 + number % 2), dtype=np.float32)
        if not path.exists():
            soundfile.write(path, 0.1 * noise, rate)


def watch(command, folder):
    """Run a command; gives its status, and pairs of the file that it is at and its memory in MB."""
    seen, at = [], 0
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            at = max(at, _file_open(process.pid, folder))
            try:
                resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page
            except (OSError, IndexError):
                break
            seen.append((at, resident))
            time.sleep(0.005)
    return process.wait(), seen


def _file_open(pid, folder):
    """Number of the file of the folder that a process has open; 0 if it has none."""
    numbers = [0]
    try:
        for one in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(one.path)
            if target.startswith(f"{folder}/"):
                numbers += [int(found) for found in re.findall(r"(\d{5})\.wav$", target)]
    except OSError:
        # a descriptor that was closed meanwhile, or the process
        pass
    return max(numbers)


def kept(seen, first, count):
    """Least and largest memory within each ``first`` files; keys are the number of the first file of each."""
    table = {}
    for at, resident in seen:
        if at:
            table.setdefault(min(at, count - 1) // first * first, []).append(resident)
    return {start: (min(found), max(found)) for start, found in sorted(table.items())}


def main():
    """Measure, print, and write the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("transcribe", "spot", "embed"))
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--files", type=int, default=5000, help="recordings")
    parser.add_argument(
        "--first", type=int, default=500, help="recordings until memory should be steady"
    )
    parser.add_argument("--folder", type=Path, help="where the recordings stay for another run")
    parser.add_argument("--out", type=Path, help="file of the figures, JSON")
    options = parser.parse_args()
    if options.files < 3 * options.first:
        parser.error("--files: give at least three times --first")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary) / "recordings").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, options.files)
        command = [sys.executable, "-m", "mamba_speech.cli", options.command, options.run, folder]
        if options.command == "embed":
            command += ["--out", Path(temporary) / "embeddings"]
        began = time.perf_counter()
        status, seen = watch([str(one) for one in command], folder)
        seconds = time.perf_counter() - began
    if status:
        sys.exit(f"error: {shlex.join(map(str, command))} ended with status {status}")
    parts = list(kept(seen, options.first, options.files).values())
    # the start of the program falls into the first part
    least, peaks = [[one[bound] for one in parts[1:]] for bound in (0, 1)]
    growth = max(least[1:]) - least[0]
    row = {
        "command": options.command,
        "files": options.files,
        "seconds": round(seconds, 1),
        f"MB kept after {options.first}": round(least[0]),
        "most MB kept later": round(max(least[1:])),
        "growth, MB": round(growth, 1),
        "goal": f"at most {GOAL}",
        "met": "yes" if growth <= GOAL else "no",
        f"peak MB after {options.first}": round(peaks[0]),
        "peak MB later": round(max(peaks[1:])),
    }
    row |= {"date": datetime.date.today().isoformat(), "run": Path(options.run).name}
    print(json.dumps(row, indent=1))
    if options.out:
        write_json(options.out, row)
    return 0 if growth <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
