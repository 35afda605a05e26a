#!/usr/bin/env python3
"""Time to read one hour of mixed recordings as mono at 16 kHz, against the plain way and another checkout.

    python benchmarks/reading.py [--minutes 60] [--rounds 5] [--other CHECKOUT] [--folder FOLDER] [--out FOLDER]

WAV, FLAC, Ogg Vorbis and MP3 files of 2 to 30 s at five sample rates, mono and stereo, are written once. Processes of
one thread then read them in turn, some files at a time: `mamba_speech.audio.load_audio` of this checkout, the same of
another checkout, and the plain way (SpeechBrain's `audio_io.load`, the channels' mean, torchaudio's `Resample`).
Seconds are processor time. Ratios are medians over the rounds. Writes reading.json.
"""

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from mamba_speech.files import write_json

GOAL = 1.05
RATE = 16000
FORMATS = (
    ("wav", "PCM_16"),
    ("flac", "PCM_16"),
    ("ogg", "VORBIS"),
    ("mp3", "MPEG_LAYER_III"),
    ("wav", "FLOAT"),
)
RATES = (8000, 16000, 22050, 44100, 48000)
# files between two turns
TURN = 20

WORKER = f"""
import json, sys, time
import torch

torch.set_num_threads(1)
paths = json.loads(sys.stdin.readline())
if sys.argv[1] == "plain":
    from speechbrain.dataio import audio_io
    from torchaudio.transforms import Resample

    resamplers = {{}}

    def load(path, rate):
        waveform, file_rate = audio_io.load(path)
        waveform = waveform.mean(0) if waveform.dim() == 2 else waveform
        if file_rate == rate:
            return waveform
        if file_rate not in resamplers:
            resamplers[file_rate] = Resample(file_rate, rate)
        return resamplers[file_rate](waveform)
else:
    from mamba_speech.audio import load_audio as load
for line in sys.stdin:
    start, stop = map(int, line.split())
    began, samples = time.process_time(), 0
    for path in paths[start:stop]:
        samples += len(load(path, {RATE}))
    print(time.process_time() - began, samples, flush=True)
"""


class Reader:
    """A process that reads files when it is told to, with the code of one checkout."""

    def __init__(self, kind, checkout, paths):
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WORKER, kind]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            command, **pipes, text=True, env=environment, cwd=str(checkout)
        )
        self._say(json.dumps([str(path) for path in paths]))

    def read(self, start, stop):
        """Seconds and samples of some of the files."""
        self._say(f"{start} {stop}")
        seconds, samples = self.process.stdout.readline().split()
        return float(seconds), int(samples)

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def _say(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


def write_files(folder, minutes):
    """Noise with the spectrum and the pauses of speech, in all formats, rates and numbers of channels."""
    random, paths, written = np.random.default_rng(0), [], 0.0
    while written < 60 * minutes:
        number = len(paths)
        ending, subtype = FORMATS[number % len(FORMATS)]
        rate = RATES[number // len(FORMATS) % len(RATES)]
        seconds = min(random.uniform(2, 30), 60 * minutes - written + 1)
        path = folder / f"{number:04d}.{ending}"
        if not path.exists():
            samples = round(rate * seconds)
            noise = random.standard_normal((samples, 1 + number % 2), dtype=np.float32)
            noise[1:] += 0.9 * noise[:-1]
            swell = np.abs(np.sin(np.arange(samples) * (3 / rate)))[:, None]
            soundfile.write(path, 0.05 * swell * noise, rate, subtype)
        paths.append(path)
        written += seconds
    return paths


def measure(readers, count, rounds):
    """Seconds of each reader in each round; the first round warms up."""
    table = {name: [] for name in readers}
    for _ in range(rounds + 1):
        spent = dict.fromkeys(readers, 0.0)
        for start in range(0, count, TURN):
            lengths = {}
            for name, reader in readers.items():
                seconds, lengths[name] = reader.read(start, min(start + TURN, count))
                spent[name] += seconds
            if len(set(lengths.values())) > 1:
                sys.exit(f"error: the ways read different numbers of samples: {lengths}")
        for name, seconds in spent.items():
            table[name].append(seconds)
    return {name: times[1:] for name, times in table.items()}


def main():
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="audio that is read")
    parser.add_argument("--rounds", type=int, default=5, help="times that all is read")
    parser.add_argument("--other", type=Path, help="another checkout of the project")
    parser.add_argument("--folder", type=Path, help="where the files stay for another run")
    parser.add_argument(
        "--out", type=Path, help="folder of the table, benchmarks/results by default"
    )
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        paths = write_files(folder, options.minutes)
        readers = {"this": Reader("project", here, paths), "plain": Reader("plain", here, paths)}
        if options.other:
            readers["other"] = Reader("project", options.other.resolve(), paths)
        times = measure(readers, len(paths), options.rounds)
        for reader in readers.values():
            reader.close()
    row = {"minutes": options.minutes, "files": len(paths), "rounds": options.rounds}
    for name, seconds in times.items():
        row[f"{name}, s (least)"] = f"{statistics.median(seconds):.2f} ({min(seconds):.2f})"
    for name in times.keys() - {"this"}:
        pairs = zip(times["this"], times[name], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        row[f"this / {name}"] = f"{ratio:.3f}"
        if name == "other":
            row |= {"goal": f"at most {GOAL}", "met": "yes" if ratio <= GOAL else "no"}
    row |= {"cores": len(os.sched_getaffinity(0)), "load": f"{os.getloadavg()[0]:.1f}"}
    row |= {"date": datetime.date.today().isoformat()}
    row |= {"command": f"`{_command(options)}`"}
    print(json.dumps(row, indent=1))
    out = options.out or Path(__file__).parent / "results"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "reading.json", [row])


def _command(options):
    """The command line, with names for the folders."""
    words = ["python", "benchmarks/reading.py", "--minutes", f"{options.minutes:g}"]
    words += ["--rounds", str(options.rounds)]
    return shlex.join(words + (["--other", "CHECKOUT"] if options.other else []))


if __name__ == "__main__":
    main()
