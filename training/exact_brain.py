"""SpeechBrain's Brain, with optimisation and resuming as its options promise them.

A resumed run takes the same steps as one that was never stopped. Weight decay spares what it must not shrink, and
clipping covers every parameter. A recording that cannot be read, and a loss that is no number, cost one item or one
batch and not the run. RecipeBrain (training/brain.py) adds the course of a recipe's run.
"""

import logging
import time

import speechbrain as sb
import torch
import yaml
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from torch.nn.parallel import DistributedDataParallel

from modules.ssm import parameter_groups
from training.checkpoints import RandomState
from training.cost import TrainingCost
from training.loading import stop_workers
from training.nonfinite import (
    RunningStatistics,
    all_names,
    finite_gradients,
    in_any_process,
    names_of,
    shown,
)
from training.odd_recordings import OddRecordings
from training.unreadable import MOST, Failure, LoadedBatch, UnreadableList, readable

logger = logging.getLogger(__name__)

# settings of an optimiser's parameter group that are options of a run; the rate is the schedule's
SETTINGS = ("weight_decay", "betas", "eps", "momentum")


@register_checkpoint_hooks
class ExactBrain(sb.Brain):
    """SpeechBrain's Brain with exact optimisation and exact resuming.

    - Weight decay spares ``A_log``, ``D``, the step's bias, norms and biases. Clipping covers all parameter groups
      together. With ``fidelity: upstream`` all parameters decay, as in the published system.
    - Checkpoints hold the random state, the cost of training so far (``cost``), and the counts of the running epoch
      (``epoch_counts``).
    - A batch whose loss is no number is skipped by all processes, as if it had not been. So are gradients that are no
      numbers. After more than ``nonfinite_patience`` of both in an epoch the training ends. With
      ``skip_nonfinite_grads`` gradients do not count for that.
    - An item that cannot be read is left out of its batch; see :mod:`training.unreadable`.
    - Workers of the training loader are seeded from ``loader_generator``, which each epoch seeds anew.
    """

    # attributes that count within an epoch of training: each begins at 0
    epoch_counts = ("skipped_steps", "last_rate", "nonfinite_losses", "unreadable_items")

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.cost = TrainingCost(self.device)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("random_state", RandomState())
            self.checkpointer.add_recoverable("cost", self.cost)
        self._train_set = self._set_epoch = None
        self._loaders = []
        self._unreadable = self._statistics = None
        self.odd = OddRecordings()
        # items of the running validation or test, and batches of it
        self.left_out = self.batches_read = 0
        # when the last checkpoint was saved, by the clock and by one that nobody sets
        self._saved_at = None, 0.0
        self.loader_generator = torch.Generator()
        self._reset_counts()
        self._clip_norm = None
        if self.hparams.fidelity == "corrected":
            # SpeechBrain clips the first parameter group only: all are clipped together as the optimiser steps
            self._clip_norm, self.max_grad_norm = self.max_grad_norm, float("inf")
        # SpeechBrain then asks check_gradients before each step, which decides by the option itself
        self._gradients_may_fail, self.skip_nonfinite_grads = self.skip_nonfinite_grads, True

    def parameter_groups(self):
        """Parameter groups of the optimiser; see :func:`modules.ssm.parameter_groups`.

        The first decays by the optimiser's own setting, the second by 0. With ``fidelity: upstream`` there is one.
        """
        modules = list(self.modules.values())
        if self.hparams.fidelity == "upstream":
            parameters = (p for module in modules for p in module.parameters())
            return [{"params": [p for p in parameters if p.requires_grad]}]
        groups = parameter_groups(modules, weight_decay=None)
        del groups[0]["weight_decay"]
        return groups

    def init_optimizers(self):
        """Build the optimiser of :meth:`parameter_groups`."""
        self.optimizer = self.opt_class(self.parameter_groups())
        self._settings = [_settings_of(group) for group in self.optimizer.param_groups]
        self.optimizers_dict = {"opt_class": self.optimizer}
        self.optimizer.register_step_pre_hook(self._note_rate)
        if self._clip_norm is not None and self._clip_norm > 0:
            self.optimizer.register_step_pre_hook(self._clip_all_groups)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def _note_rate(self, optimizer, arguments, options):
        self.last_rate = float(optimizer.param_groups[0]["lr"])

    def _clip_all_groups(self, optimizer, arguments, options):
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        torch.nn.utils.clip_grad_norm_(parameters, self._clip_norm)

    def check_gradients(self):
        """Drop a step whose gradients are not finite, and count it."""
        parameters = [p for p in self.modules.parameters() if p.grad is not None]
        if finite_gradients(parameters):
            return
        self.skipped_steps += 1
        for parameter in parameters:
            parameter.grad = None
        if not self._gradients_may_fail:
            self._lose_patience("gradients")

    def fit_batch(self, batch):
        """Take a step, unless the loss is no number: then the batch is skipped; see SpeechBrain's method."""
        batch = self._loaded(batch)
        self._note_replaced()
        if batch is None:
            self.unreadable.stop()
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        if self._statistics is None:
            self._statistics = RunningStatistics(self.modules)
        self._statistics.keep()
        counts = {name: getattr(self, name) for name in self.epoch_counts}
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            finite = bool(torch.isfinite(loss))
            skipped = in_any_process(not finite, self.device)
            if not skipped:
                self.scaler.scale(loss / self.grad_accumulation_factor).backward()
        if skipped:
            vars(self).update(counts)
            self._skip(batch, finite, should_step)
        if should_step:
            self._step(skipped)
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return loss.detach().cpu()

    def _skip(self, batch, finite, should_step):
        """Undo what a batch has done, in every process, and count and log it."""
        self._statistics.restore()
        if should_step and self.distributed_launch:
            # gradients of batches before were to be joined by this batch's
            self.zero_grad(set_to_none=True)
        names = all_names([] if finite else names_of(batch, self.step))
        logger.warning("a loss that is no finite number, of %s: the batch is skipped", shown(names))
        self.nonfinite_losses += 1
        self._lose_patience(f"losses, the last of {shown(names)},")

    def _step(self, skipped):
        """A step of the optimiser; none where a scaler of the loss has no gradients to look at."""
        nothing = skipped and all(p.grad is None for p in self.modules.parameters())
        if nothing and self.scaler.is_enabled():
            self.optimizer_step += 1
            return
        self.optimizers_step()

    def _lose_patience(self, what):
        """End the training if too much of an epoch was skipped."""
        skipped = self.nonfinite_losses + (0 if self._gradients_may_fail else self.skipped_steps)
        if skipped > self.nonfinite_patience:
            kept = self.checkpointer and self.checkpointer.find_checkpoint()
            raise SystemExit(
                f"training stopped: {what} were no finite numbers in {skipped} batches of an epoch, more than "
                f"--nonfinite_patience {self.nonfinite_patience} allows; "
                + (
                    f"{kept.path} is the last checkpoint; "
                    if kept
                    else "there is no checkpoint yet; "
                )
                + "lower --lr, or mend these recordings"
            )

    def evaluate_batch(self, batch, stage):
        """Evaluate the readable part of a batch; an empty part gives NaN, which no mean counts."""
        batch = self._loaded(batch, stage)
        if batch is None:
            return torch.tensor(float("nan"))
        self.batches_read += 1
        return super().evaluate_batch(batch, stage)

    @property
    def unreadable(self):
        """The recordings that the run could not read."""
        if self._unreadable is None:
            most = getattr(self.hparams, "max_unreadable", MOST)
            self._unreadable = UnreadableList(self.hparams.output_folder, most)
        return self._unreadable

    def _loaded(self, batch, stage=sb.Stage.TRAIN):
        """The batch that a loader gives; its unreadable items are noted."""
        if not isinstance(batch, LoadedBatch):
            return batch
        self.odd.note(batch.warnings)
        if batch.failures:
            self.unreadable.note(batch.failures)
            if stage == sb.Stage.TRAIN:
                self.unreadable_items += len(batch.failures)
            else:
                self.left_out += len(batch.failures)
        return batch.batch

    def _note_replaced(self):
        """List the recordings that the training set could not read and has replaced by itself."""
        replaced = getattr(self._train_set, "unreadable", None)
        if replaced:
            self.unreadable.note([Failure(path, path, error) for path, error in replaced.items()])

    def _wrap_distributed(self):
        """Wrap the networks in DDP; on a CPU with the BatchNorm they have, since SyncBatchNorm wants a GPU."""
        if not self.distributed_launch or torch.device(self.device).type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(parameter.requires_grad for parameter in module.parameters()):
                self.modules[name] = DistributedDataParallel(
                    module, find_unused_parameters=self.find_unused_parameters
                )

    def make_dataloader(self, dataset, stage, *arguments, **options):
        """Make a loader, whose workers end with the training; see SpeechBrain's method."""
        if stage == sb.Stage.TRAIN:
            options.setdefault("generator", self.loader_generator)
            # SpeechBrain tells it each epoch that begins
            self.train_sampler = options.get("batch_sampler")
        most = getattr(self.hparams, "max_unreadable", MOST)
        dataset, options = readable(dataset, options, stage == sb.Stage.TRAIN, most)
        loader = super().make_dataloader(dataset, stage, *arguments, **options)
        self._loaders.append(loader)
        return loader

    def fit(self, epoch_counter, train_set, *arguments, **options):
        """Train; see SpeechBrain's method. A training set with ``set_epoch`` is told each epoch that begins."""
        self._set_epoch = getattr(train_set, "set_epoch", None)
        self._train_set = train_set
        try:
            super().fit(epoch_counter, train_set, *arguments, **options)
        finally:
            while self._loaders:
                stop_workers(self._loaders.pop())

    def on_fit_start(self):
        """Load the latest checkpoint, then give the optimiser its options, which the checkpoint has replaced."""
        super().on_fit_start()
        if self.optimizer is not None:
            for group, settings in zip(self.optimizer.param_groups, self._settings, strict=True):
                group.update(settings)

    def on_stage_start(self, stage, epoch=None):
        """Begin to count, also the time of training, and seed the training loader's own generator.

        A resumed epoch would otherwise advance the process's generator once more than an uninterrupted one.
        """
        if stage != sb.Stage.TRAIN:
            self.cost.stop()
            self.left_out = self.batches_read = 0
            return
        resumed = self.step > 0
        self.cost.start(resumed)
        if not resumed:
            self._reset_counts()
        self.loader_generator.manual_seed(getattr(self.hparams, "seed", 0) + epoch)
        if self._set_epoch is not None:
            self._set_epoch(epoch)

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """Between two steps of the optimiser only: accumulated gradients are in no checkpoint."""
        # asked always, since the processes of a distributed run agree on the answer
        if last_ckpt_time != self._saved_at[0]:
            since = max(0.0, time.time() - last_ckpt_time)
            self._saved_at = last_ckpt_time, time.monotonic() - since
        # a clock that is set back would put the next one off until it has caught up
        last_ckpt_time = time.time() - (time.monotonic() - self._saved_at[1])
        due = super()._should_save_intra_epoch_ckpt(last_ckpt_time, steps_since_ckpt)
        return due and self.step % self.grad_accumulation_factor == 0

    def _reset_counts(self):
        for name in self.epoch_counts:
            setattr(self, name, 0)

    @mark_as_saver
    def _save(self, path):
        """Write SpeechBrain's state of a Brain, and the counts of the epoch so far."""
        super()._save(path)
        counts = {name: getattr(self, name) for name in self.epoch_counts}
        with open(path, "a", encoding="utf-8") as file:
            yaml.dump({"epoch_counts": counts}, file)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        super()._recover(path, end_of_epoch)
        with open(path, encoding="utf-8") as file:
            counts = yaml.safe_load(file)["epoch_counts"]
        # one that is missing tells of a file that was cut short
        for name, count in {name: counts[name] for name in self.epoch_counts}.items():
            setattr(self, name, count)


def _settings_of(group):
    return {name: group[name] for name in SETTINGS if name in group}
