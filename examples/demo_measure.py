"""How long a training step takes here: real steps of the demo's network, in as many processes as will train.

    python examples/demo_measure.py hparams/LibriSpeech/ASR/S2S/conmambamamba_mini.yaml

prints the seconds of a step on noise. The demo starts it in each process at once, so that they share the machine as
the training's processes do.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

# seconds of audio in a step, as batches have them on average, in utterances of so many seconds
SECONDS, UTTERANCE = 18.0, 3.0
TOKENS = 24
WARM_UP, STEPS = 2, 7


def seconds_a_step(yaml, processes, environment=None):
    """The seconds of a training step where so many processes compute at the same time.

    Arguments
    ---------
    yaml : Path
        Options of a sequence-to-sequence recogniser.
    processes : int
    environment : dict of str: str, optional
        Environment of the processes.

    Returns
    -------
    float
        Of the slowest process.

    Raises
    ------
    RuntimeError
        If a process fails; what it said stands on stderr.
    """
    command = [sys.executable, str(Path(__file__)), str(yaml)]
    started = []
    try:
        for _ in range(processes):
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
        answers = [process.communicate()[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    if any(process.returncode for process in started):
        raise RuntimeError("a training step could not be measured; what it said stands above")
    return max(map(float, answers))


def measure(yaml, clock=time.monotonic):
    """The median seconds of a step of this process, on noise.

    Arguments
    ---------
    yaml : Path
        See :func:`seconds_a_step`.
    clock : callable
    """
    # here, since the demo imports this file and computes nothing itself
    import logging

    import torch
    from hyperpyyaml import load_hyperpyyaml

    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder, open(yaml, encoding="utf-8") as file:
        parts = load_hyperpyyaml(file, {"output_folder": folder})
    model = parts["model"].train()
    optimizer = parts["opt_class"](model.parameters())
    utterances = round(SECONDS / UTTERANCE)
    noise = torch.randn(utterances, round(UTTERANCE * parts["sample_rate"]))
    whole = torch.ones(utterances)
    tokens = torch.randint(3, parts["output_neurons"], (utterances, TOKENS))
    taken = []
    for _ in range(WARM_UP + STEPS):
        began = clock()
        features, lengths = parts["compute_features"](noise, whole)
        out = model(features, lengths, tokens, whole)
        frames = lengths / features.shape[1]
        loss = parts["seq_cost"](out.seq_log_probs, tokens, length=whole)
        for log_probs in (out.ctc_log_probs, out.intermediate):
            loss = loss + parts["ctc_cost"](log_probs, tokens, frames, whole)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), parts["max_grad_norm"])
        optimizer.step()
        taken.append(clock() - began)
    return median(taken[WARM_UP:])


def main():
    """Print the seconds of a step."""
    parser = argparse.ArgumentParser(description="Measure a training step of the demo.")
    parser.add_argument("yaml", type=Path)
    yaml = parser.parse_args().yaml
    # what libraries print must not mix with the figure
    answer = os.dup(1)
    os.dup2(2, 1)
    found = measure(yaml)
    with open(answer, "w", encoding="utf-8") as file:
        file.write(f"{found:.4f}\n")


if __name__ == "__main__":
    main()
