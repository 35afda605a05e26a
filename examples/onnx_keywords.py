"""Name the keyword of a clip with onnxruntime, without PyTorch and without this project.

The folder comes from ``mamba-speech export RUN FOLDER --format onnx``. Needed are numpy, onnxruntime and soundfile:
``python onnx_keywords.py FOLDER clip.wav ...``
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


def main(folder, *clips):
    """Print each clip's keyword and its probability."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for clip in clips:
        waveform, rate = soundfile.read(clip, dtype="float32", always_2d=True)
        if rate != config["sample_rate"]:
            raise SystemExit(f"{clip}: has {rate} samples a second, give {config['sample_rate']}")
        waveform = waveform.mean(1)[None]  # (1, samples)
        count = np.array([waveform.shape[1]])
        # a clip may be short, the batch may not: zeros behind its end are not read
        missing = max(0, config["least_samples"] - waveform.shape[1])
        waveform = np.pad(waveform, ((0, 0), (0, missing)))
        (log_probs,) = session.run(None, {"waveform": waveform, "samples": count})
        best = int(log_probs[0].argmax())
        print(f"{clip}: {labels[best]} {np.exp(log_probs[0, best]):.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("give a folder of --format onnx, then recordings")
    main(*sys.argv[1:])
