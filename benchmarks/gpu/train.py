"""One real training run: the CTC recipe on the carried spoken corpus, by the torch backend and by default."""

import os
import re
import shutil
import subprocess
import sys
import time

from benchmarks.gpu.prepare import CARRIED, ROOT

RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
_CORPUS = CARRIED / "corpus" / "LibriSpeech"


def train(output, model, backend, options, limit):
    """Run the recipe in a process of its own; the figures of the run.

    Arguments
    ---------
    output : pathlib.Path
        Folder of the run.
    model : str
        Name of the hyperparameter file.
    backend : str
        ``auto`` or a backend's name.
    options : dict
        Options of the recipe.
    limit : float
        Seconds after which the run is stopped.

    Returns
    -------
    dict
        Those of :func:`read_run`, ``seconds``, and ``problem``: empty, or why the run ended early.
    """
    path = os.pathsep.join([str(RECIPE), os.environ.get("PYTHONPATH", str(ROOT))])
    environment = os.environ | {"PYTHONPATH": path, "MAMBA_SPEECH_BACKEND": backend}
    command = [sys.executable, str(RECIPE / "train_CTC.py")]
    command += [str(RECIPE / "hparams" / "CTC" / model), "--output_folder", str(output / "run")]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    # a run left by an earlier check would be resumed, and its figures read as this one's
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    console, problem, began = output / "console.txt", "", time.monotonic()
    with console.open("w", encoding="utf-8") as file:
        run = {"cwd": ROOT, "env": environment, "stdout": file, "stderr": subprocess.STDOUT}
        try:
            code = subprocess.run(command, check=False, timeout=limit, **run).returncode
        except subprocess.TimeoutExpired:
            code, problem = 0, f"stopped after {limit} s"
    if code:
        lines = [line for line in console.read_text(encoding="utf-8").splitlines() if line.strip()]
        problem = f"failed: {lines[-1][-160:] if lines else 'no output'}"
    seconds = round(time.monotonic() - began, 1)
    return read_run(output / "run") | {"seconds": seconds, "problem": problem}


def read_run(folder):
    """Figures from the recipe's log: steps, their rate after the first epoch, losses and the test's word error rate."""
    log = folder / "train_log.txt"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    epochs = re.findall(r"steps: (\d+) - train loss: (\S+), train seconds: ([^\s,]+)", text)
    facts = dict.fromkeys(("steps", "steps_per_second", "first_loss", "last_loss"), "")
    if epochs:
        # the first epoch compiles kernels
        later = epochs[1:] or epochs
        done = int(epochs[-1][0]) - (int(epochs[0][0]) if epochs[1:] else 0)
        facts = {
            "steps": int(epochs[-1][0]),
            "steps_per_second": round(done / max(sum(float(e[2]) for e in later), 1e-9), 2),
            "first_loss": float(epochs[0][1]),
            "last_loss": float(epochs[-1][1]),
        }
    wer = re.findall(r"test WER: (\S+?),", text)
    return facts | {"test_WER": float(wer[-1]) if wer else ""}


def run(arguments):
    """Write the table; 1 if a run failed or the long one's loss did not fall."""
    if not _CORPUS.is_dir():
        raise SystemExit(
            f"train: no corpus in {_CORPUS}: run benchmarks/gpu_check.sh prepare where there is a network"
        )
    report = arguments.report("train", "Training the CTC recipe on a spoken corpus")
    card = arguments.device.type == "cuda"
    options = {"data_folder": _CORPUS, "device": "cuda:0" if card else "cpu"}
    options |= {"precision": "bf16" if card else "fp32", "num_workers": 4 if card else 0}
    # name, backend, steps, epochs, seconds
    plans = [("torch", "torch", 40, 2, 90), ("default", "auto", 100_000, 20, 330)]
    if not card:
        plans = [("default", "auto", 2, 1, 200)]
        report.note("two steps of a tiny model on the CPU: they show the path, not a speed")
    model = "conmamba_mini.yaml" if card else "conmamba_debug.yaml"
    failures = 0
    for name, backend, steps, epochs, seconds in plans:
        limits = {"number_of_epochs": epochs, "optimizer_step_limit": steps}
        output = arguments.out / "train" / name
        facts = train(output, model, backend, options | limits, seconds)
        learnt = facts["steps"] and facts["last_loss"] < facts["first_loss"]
        if card and backend == "auto" and not learnt:
            facts["problem"] = facts["problem"] or "failed: the loss did not fall"
        failures += facts["problem"].startswith("failed")
        report.add(run=name, **facts)
    return int(failures > 0)
