#!/usr/bin/env python3
"""Measure how long an optimiser step of train.py takes, by training for a moment and throwing the model away.

    python rate.py rate.json hparams/mamba_mel_small.yaml --data_folder speech_commands_v0.02

compare.py --budget_seconds turns that into a number of steps, so that recipes train for equal times and yet a run can
be repeated step by step. On a CPU the time is the processor's: what else runs there does not make a recipe seem slow.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from keyword_data import make_datasets, prepare_clips, training_options
from train import KeywordBrain

from mamba_speech.files import write_json
from training.experiment import describe_device, load_experiment
from training.loading import SeededItems, count_batches

# the first steps allocate, compile and choose kernels
WARM_UP = 2
ENOUGH = 30
ENOUGH_SECONDS = 5.0
AT_LEAST = 3


class TimedBrain(KeywordBrain):
    """Training that stops when it has timed enough steps."""

    def on_fit_start(self):
        """Start the clock."""
        super().on_fit_start()
        self.seconds, self.last = [], self.clock()

    def clock(self):
        """Seconds of the processor, or of the wall where a GPU works."""
        if torch.device(self.device).type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.monotonic()

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Time a step, reading its clips included."""
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if not should_step:
            return
        now = self.clock()
        self.seconds.append(now - self.last)
        self.last = now
        timed = self.seconds[WARM_UP:]
        if len(timed) >= ENOUGH or (len(timed) >= AT_LEAST and sum(timed) > ENOUGH_SECONDS):
            self.optimizer_step_limit = self.optimizer_step


def measure(arguments, output_folder):
    """Seconds of an optimiser step, and how many an epoch has.

    Arguments
    ---------
    arguments : list of str
        Those of train.py.
    output_folder : str or Path
        Where the manifests go.

    Returns
    -------
    dict
        ``seconds_a_step`` (the median), ``steps_an_epoch``, ``timed`` (so many steps), ``device``.
    """
    hparams, run_opts = load_experiment([*arguments, "--output_folder", str(output_folder)])
    found, labels = prepare_clips(hparams)
    train, *_ = make_datasets(hparams, found, labels)
    brain = TimedBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams | {"write_hyperparams": None},
        run_opts=run_opts,
    )
    brain.labels = labels
    options = training_options(hparams)
    batches = count_batches(len(train), options, "clips")
    brain.plan_schedule(batches)
    epochs = range(1, 2 + ENOUGH + WARM_UP)
    items = SeededItems(train, hparams["seed"])
    brain.fit(epochs, items, train_loader_kwargs=options, progressbar=False)
    return {
        "seconds_a_step": statistics.median(brain.seconds[WARM_UP:]),
        "steps_an_epoch": batches // brain.grad_accumulation_factor,
        "timed": len(brain.seconds) - WARM_UP,
        "device": describe_device(brain.device),
    }


def main():
    """Measure, and write the JSON file."""
    if len(sys.argv) < 3:
        raise SystemExit("give the JSON file to write, and the arguments of train.py")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(sys.argv[2:], folder)
    write_json(Path(sys.argv[1]), figures)
    print(f"{figures['seconds_a_step']:.3f} s a step, {figures['steps_an_epoch']} steps an epoch")


if __name__ == "__main__":
    main()
