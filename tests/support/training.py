"""The smallest recipe: a Brain of one Mamba block, for the tests of what all Brains share."""

from functools import partial

import speechbrain as sb
import torch

from modules.ssm import Mamba
from training.brain import RecipeBrain
from training.checkpoints import AtomicCheckpointer


class Regression(RecipeBrain):
    """The smallest recipe: one Mamba block that learns to double its input."""

    def compute_forward(self, batch, stage):
        return self.modules.model(batch[0])

    def compute_objectives(self, predictions, batch, stage):
        return (predictions - 2 * batch[0]).square().mean()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.VALID:
            self.save_epoch({"WER": stage_loss, "epoch": epoch})
            # as time would have it: it must not count among those that are averaged
            self._save_intra_epoch_ckpt()


def make_brain(folder, fidelity="corrected", lr=1e-3, decay=0.0, schedule=None, **options):
    model = Mamba(8)
    counter = sb.utils.epoch_loop.EpochCounter(options.pop("epochs", 1))
    checkpointer = AtomicCheckpointer(folder, recoverables={"model": model, "counter": counter})
    hparams = {
        "fidelity": fidelity,
        "avg_checkpoints": options.pop("avg_checkpoints", 2),
        "checkpoint_choice": options.pop("choice", "last"),
        "model": model,
        "lr_annealing": schedule,
        "epoch_counter": counter,
        "number_of_epochs": counter.limit,
        "output_folder": folder,
    }
    brain_class = options.pop("brain_class", Regression)
    opt_class = partial(torch.optim.AdamW, lr=lr, weight_decay=decay)
    run_opts = {"device": "cpu", "noprogressbar": True, **options}
    return brain_class({"model": model}, opt_class, hparams, run_opts, checkpointer)


def batches(count=3):
    torch.manual_seed(5)
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(count, 6, 8)), batch_size=1
    )


def train(brain):
    brain.fit(brain.hparams.epoch_counter, batches(), batches(1))
    return brain


class Killed(Exception):
    """What ends a run in the middle."""


class Counting(Regression):
    """Counts its batches, and stops where a test wants it to."""

    epoch_counts = (*RecipeBrain.epoch_counts, "batches_seen")
    stop_in_stage = stop_after_batches = None

    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        if stage == self.stop_in_stage:
            raise Killed

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if self.batches_seen == self.stop_after_batches:
            raise Killed
        self.batches_seen += 1

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.VALID:
            self.save_epoch({"WER": stage_loss, "epoch": epoch})

    def run(self):
        """Fit to six batches, whose loader a checkpoint knows; gives the Brain."""
        self.fit(self.hparams.epoch_counter, batches(6).dataset, batches(1))
        return self
