"""One line a test set for every run: what was measured, by which model, how and when."""

import datetime
import json
import os
from pathlib import Path

import speechbrain
import torch

from training.experiment import count_parameters, describe_device


def record_result(brain, test_set, figures):
    """Write or replace the test set's entry in ``results.json`` of the run's output folder.

    Arguments
    ---------
    brain : training.brain.RecipeBrain
    test_set : str
    figures : dict of str: float
        What was measured on it.
    """
    path = Path(brain.hparams.output_folder) / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results[test_set] = {name: round(float(value), 4) for name, value in figures.items()} | {
        "fidelity": brain.hparams.fidelity,
        "parameters": count_parameters(brain.hparams.model),
        "seed": brain.hparams.seed,
        "optimizer_steps": brain.optimizer_step,
        "precision": str(brain.precision),
        "device": describe_device(brain.device),
        "torch": torch.__version__,
        "speechbrain": speechbrain.__version__,
        "date": datetime.date.today().isoformat(),
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
