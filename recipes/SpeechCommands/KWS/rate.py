#!/usr/bin/env python3
"""Measure a recipe's training steps, and print the options that let it train for so many seconds.

    OMP_NUM_THREADS=1 python rate.py 120 hparams/mamba_mel_small.yaml --data_folder speech_commands_v0.02

It trains for a moment and throws the model away. The options name a number of steps, so that recipes train for equal
times and yet a run can be stopped, continued and repeated. On a CPU the time is the processor's: what else runs there
does not make a recipe seem slow, and neither does it count what loaders do in processes of their own.
"""

import contextlib
import math
import statistics
import sys
import tempfile
import time

import torch
from classes import complete_options
from keyword_data import make_datasets, prepare_clips, training_options
from options import KeywordOptions
from train import KeywordBrain

from training.experiment import load_experiment
from training.loading import SeededItems, count_batches
from training.script import script

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
    """Time an optimiser step, and count the steps of an epoch.

    Arguments
    ---------
    arguments : list of str
        Those of train.py.
    output_folder : str or Path
        Where the manifests go.

    Returns
    -------
    (float, int)
        Seconds a step (the median), and steps an epoch.
    """
    hparams, run_opts = load_experiment(
        [*arguments, "--output_folder", str(output_folder)], KeywordOptions, complete_options
    )
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
    return statistics.median(brain.seconds[WARM_UP:]), batches // brain.grad_accumulation_factor


@script
def main():
    """Measure, and print the options."""
    try:
        budget = float(sys.argv[1])
    except (IndexError, ValueError):
        budget = 0.0
    if not 0 < budget < math.inf or len(sys.argv) < 3:
        raise SystemExit("give the seconds to train, above 0, and the arguments of train.py")
    # the options alone go to stdout, for $(...)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        seconds, steps_an_epoch = measure(sys.argv[2:], folder)
    steps = max(1, round(budget / seconds))
    epochs = math.ceil(steps / steps_an_epoch)
    print(f"optimizer_step_limit={steps},number_of_epochs={epochs}")


if __name__ == "__main__":
    main()
