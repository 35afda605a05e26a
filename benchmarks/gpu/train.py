"""One real training run: the CTC recipe on the carried spoken corpus in bf16, with Triton and by default."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from benchmarks.gpu.prepare import CARRIED, ROOT

RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
SECONDS = 270  # for the long run, tests included
_SHORT_STEPS = 40


def options(device, steps, epochs):
    """The recipe's options for this machine."""
    return {
        "data_folder": corpus(),
        "device": "cuda:0" if device.type == "cuda" else "cpu",
        "precision": "bf16" if device.type == "cuda" else "fp32",
        "number_of_epochs": epochs,
        "optimizer_step_limit": steps,
        "num_workers": 4 if device.type == "cuda" else 0,
    }


def corpus():
    """The carried corpus in LibriSpeech's layout.

    Raises
    ------
    SystemExit
        If it is not there.
    """
    folder = CARRIED / "corpus" / "LibriSpeech"
    if not folder.is_dir():
        raise SystemExit(
            f"train: no corpus in {folder}: run benchmarks/gpu_check.sh prepare where there is a network"
        )
    return folder


def train(output, model, backend, chosen, limit):
    """Run the recipe in a process of its own; facts of the run.

    Arguments
    ---------
    output : pathlib.Path
        The run's folder.
    model : str
        Name of the hyperparameter file.
    backend : str
        ``auto`` or a name of a scan backend.
    chosen : dict
        Options of the recipe.
    limit : float
        Seconds after which the run is stopped and tested as far as it came.

    Returns
    -------
    dict
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(RECIPE), os.environ.get("PYTHONPATH", str(ROOT))])
    }
    environment.pop("MAMBA_SPEECH_BACKEND", None)
    if backend != "auto":
        environment["MAMBA_SPEECH_BACKEND"] = backend
    memory = str(output / "memory.json")
    command = [sys.executable, "-m", "benchmarks.gpu.recipe", memory]
    command += [str(RECIPE / "train_CTC.py"), str(RECIPE / "hparams" / "CTC" / model)]
    command += ["--output_folder", str(output / "run")]
    command += [part for key, value in chosen.items() for part in (f"--{key}", str(value))]
    # a run left by an earlier check would be resumed, and its figures read as this one's
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    began = time.monotonic()
    with (output / "console.txt").open("w", encoding="utf-8") as file:
        run = {"cwd": ROOT, "env": environment, "stdout": file, "stderr": subprocess.STDOUT}
        code, stopped = _until(command, limit, **run)
        if stopped:
            # its peak goes elsewhere: the table's is the training's
            tested = [str(output / "memory_test.json") if c == memory else c for c in command]
            code, _ = _until([*tested, "--test_only"], 60, **run)
    facts = read_run(output) | {"seconds": round(time.monotonic() - began, 1), "code": code}
    return facts | {"stopped": stopped}


def _until(command, limit, **run):
    """Exit code of a command, and whether it was interrupted after ``limit`` seconds."""
    with subprocess.Popen(command, **run) as process:
        try:
            return process.wait(limit), False
        except subprocess.TimeoutExpired:
            # an interrupt, not a kill, so that the peak of memory is still written
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(15), True
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(), True


def read_run(output):
    """Figures from what the recipe wrote."""
    log = output / "run" / "train_log.txt"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    epochs = re.findall(r"steps: (\d+) - train loss: (\S+), train seconds: ([^\s,]+)", text)
    epochs = [(int(steps), float(loss), float(seconds)) for steps, loss, seconds in epochs]
    facts = {"steps": 0, "first_loss": "", "last_loss": "", "steps_per_second": ""}
    if epochs:
        # the first epoch compiles kernels
        later = epochs[1:] or epochs
        done = epochs[-1][0] - (epochs[0][0] if epochs[1:] else 0)
        facts = {
            "steps": epochs[-1][0],
            "first_loss": epochs[0][1],
            "last_loss": epochs[-1][1],
            "steps_per_second": round(done / max(sum(row[2] for row in later), 1e-9), 2),
        }
    wer = re.findall(r"test WER: (\S+?),", text)
    memory = output / "memory.json"
    peak = json.loads(memory.read_text())["peak_mib"] or "" if memory.exists() else ""
    return facts | {"WER": float(wer[-1]) if wer else "", "peak_MiB": peak}


def last_line(path):
    """The last line that says something."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1][-160:] if lines else "no output"


def run(arguments):
    """Write the table; 1 if a run failed or the long one's loss did not fall."""
    device = arguments.device
    card = device.type == "cuda"
    report = arguments.report("train", "Training the CTC recipe on a spoken corpus")
    # name, backend, steps, epochs, seconds
    plans = [
        ("default", "auto", _SHORT_STEPS, 2, 90),
        ("triton", "triton", 100_000, 30, SECONDS),
    ]
    if not card:
        plans = [("default", "auto", 2, 1, 200)]
        report.notes.append("two steps of a tiny model on the CPU: they show the path, not a speed")
    model = "conmamba_mini.yaml" if card else "conmamba_debug.yaml"
    failures = 0
    for name, backend, steps, epochs, seconds in plans:
        output = arguments.out / "train" / name
        facts = train(output, model, backend, options(device, steps, epochs), seconds)
        problem = ""
        if facts["code"]:
            problem = f"failed: {last_line(output / 'console.txt')}"
        elif backend == "triton" and not facts["last_loss"] < facts["first_loss"]:
            problem = "the loss did not fall"
        failures += bool(problem)
        report.add(
            run=name,
            steps=facts["steps"],
            steps_per_second=facts["steps_per_second"],
            peak_MiB=facts["peak_MiB"],
            first_loss=facts["first_loss"],
            last_loss=facts["last_loss"],
            test_WER=facts["WER"],
            seconds=facts["seconds"],
            outcome=problem
            or ("stopped by the clock, then tested" if facts["stopped"] else "done"),
        )
    return int(failures > 0)
