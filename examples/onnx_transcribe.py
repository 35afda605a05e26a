"""Transcribe recordings with onnxruntime, without PyTorch and without this project.

The folder comes from ``mamba-speech export RUN FOLDER --format onnx`` of a CTC recogniser. Needed are numpy,
onnxruntime and soundfile: ``python onnx_transcribe.py FOLDER speech.wav ...``
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


def best_path(tokens, blank):
    """CTC's rule: repetitions are one token, and blanks are none."""
    before = np.concatenate([[blank], tokens[:-1]])
    return tokens[(tokens != before) & (tokens != blank)]


def main(folder, *recordings):
    """Print each recording's text."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    names = [line.rsplit(" ", 1)[0] for line in lines]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for recording in recordings:
        waveform, rate = soundfile.read(recording, dtype="float32", always_2d=True)
        if rate != config["sample_rate"]:
            raise SystemExit(
                f"{recording}: has {rate} samples a second, give {config['sample_rate']}"
            )
        waveform = waveform.mean(1)[None]  # (1, samples)
        count = np.array([waveform.shape[1]])
        # a recording may be short, the batch may not: zeros behind its end are not read
        missing = max(0, config["least_samples"] - waveform.shape[1])
        waveform = np.pad(waveform, ((0, 0), (0, missing)))
        log_probs, frames = session.run(None, {"waveform": waveform, "samples": count})
        tokens = best_path(log_probs[0, : frames[0]].argmax(-1), config["blank"])
        text = "".join(names[token] for token in tokens if token not in config["control"])
        print(f"{recording}: {text.replace(chr(0x2581), ' ').strip()}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("give a folder of --format onnx, then recordings")
    main(*sys.argv[1:])
