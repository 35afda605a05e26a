"""The Brain that every recipe's Brain extends: the course of a run, from its first epoch to its last test."""

import contextlib
import logging
import math

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, run_on_main

from mamba_speech.checkpoints import (
    at_least_one,
    average_model,
    checkpoints_to_average,
    selection_value,
)
from training.checkpoints import MISMATCHES
from training.exact_brain import ExactBrain
from training.experiment import count_parameters
from training.loading import count_batches
from training.loggers import TrainLoggers
from training.recording import (
    begin_training,
    check_record,
    describe_checkpoints,
    record_epoch,
    record_result,
)
from training.resume import tell_changes
from training.schedules import set_rate
from training.script import one_error_for_a_full_disk

logger = logging.getLogger(__name__)


class RecipeBrain(ExactBrain):
    """An ExactBrain that trains, validates, tests and records a run.

    A recipe's Brain adds ``compute_forward``, ``compute_objectives`` and :meth:`stage_stats`. What the run was, and
    came to, stands in its record; see docs/results.md. A checkpoint of another model is refused with one sentence.

    The YAML gives ``fidelity``, ``avg_checkpoints`` and ``checkpoint_choice`` (``best`` by ``selection_key``, or
    ``last``). The schedules are ``lr_annealing``, which acts at every step, and ``lr_plateau``, which acts at every
    epoch. Both may be missing. An ``epoch_counter`` that stops early watches ``selection_key``.
    """

    # name of the items of a data set, in logs and results
    items = "items"
    # stage statistic by which checkpoints are compared; lower is better
    selection_key = "WER"
    # stage statistic that moves the rate of ``lr_plateau``
    plateau_key = "loss"

    @classmethod
    def from_hparams(cls, hparams, run_opts, lists=None, test_lists=None):
        """Open the Brain of a loaded experiment, its checkpoints and its logs.

        Arguments
        ---------
        hparams : dict
        run_opts : speechbrain.utils.run_opts.RunOptions
            Both as :func:`training.experiment.load_experiment` gives them.
        lists, test_lists : dict of str: Path or str
            Data of the training (``train``, ``valid``, ``tokenizer``, ``labels``) and the test sets, for the record:
            files, or hashes.
        """
        brain = cls(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=run_opts,
            checkpointer=hparams["checkpointer"],
        )
        brain.train_logger = TrainLoggers.from_hparams(hparams)
        brain.lists, brain.test_lists = lists or {}, test_lists or {}
        logger.info("%s parameters", f"{count_parameters(hparams['model']):,}")
        return brain

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        # of the record: the checkpoints that are tested, this start of the script, and its lists
        self.averaged = self.session = None
        self.lists, self.test_lists = {}, {}
        if self.checkpointer is not None:
            self.checkpointer.run_folder = self.hparams.output_folder
        # the test set that is evaluated
        self.test_name = self.test_set = None

    def train_on(self, train, valid, train_options, valid_options):
        """Plan the schedule, and train.

        Arguments
        ---------
        train, valid : torch.utils.data.Dataset
            Data to train on and to validate on.
        train_options, valid_options : dict
            Options of their loaders; see :func:`training.loading.loader_options`.

        Raises
        ------
        SystemExit
            If the training set makes no batch, or an epoch makes no step of the optimiser.
        """
        logger.info("%d %s to train on, %d to validate", len(train), self.items, len(valid))
        self.plan_schedule(count_batches(len(train), train_options, self.items))
        self.fit(
            self.hparams.epoch_counter,
            train,
            valid,
            train_loader_kwargs=train_options,
            valid_loader_kwargs=valid_options,
        )

    def plan_schedule(self, batches):
        """Tell a schedule that ends with the training how many steps that is, unless its YAML does.

        Arguments
        ---------
        batches : int
            Batches an epoch, over all processes.

        Raises
        ------
        SystemExit
            If an epoch has fewer batches than there are processes, or gradients are accumulated over more batches than
            an epoch has.
        """
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        if batches < world:
            raise SystemExit(
                f"each of the {world} processes needs a batch, and an epoch has {batches}: start fewer processes, or "
                "make batches smaller"
            )
        # SpeechBrain begins to accumulate anew with every epoch: what is left over is dropped
        an_epoch = -(-batches // world) // self.grad_accumulation_factor
        if not an_epoch:
            raise SystemExit(
                f"an epoch has {-(-batches // world)} batches, fewer than --grad_accumulation_factor "
                f"{self.grad_accumulation_factor}, so that no step would be taken: lower it, or make batches smaller"
            )
        schedule = self.hparams.lr_annealing
        if getattr(schedule, "total_steps", None) == 0:
            steps = an_epoch * self.hparams.epoch_counter.limit
            schedule.total_steps = min(steps, self.optimizer_step_limit or steps)

    def fit(self, *arguments, **options):
        """Train, and record the end of the session; see SpeechBrain's method."""
        with one_error_for_a_full_disk(self.checkpointer, self.hparams.output_folder):
            super().fit(*arguments, **options)
        # only the main process has begun a session, and only if there was something to train
        if self.session is not None:
            record_epoch(self)

    def on_fit_start(self):
        """Load the latest checkpoint, then set the first step's learning rate."""
        check_record(self)
        if self.checkpointer is not None:
            self.checkpointer.remove_incomplete()
        with self._one_error_for_another_model():
            super().on_fit_start()
        self._take_up_changes()
        write_hyperparams = getattr(self.hparams, "write_hyperparams", None)
        if write_hyperparams is not None:
            # only now are the options known to fit the checkpoints
            run_on_main(write_hyperparams)
        if self._optimizer_step_limit_exceeded and not self.step:
            # a finished run that is started again has no epoch to add; one killed before the last epoch's
            # validation has that to do
            self.hparams.epoch_counter.current = self.hparams.epoch_counter.limit
        if not _is_over(self.hparams.epoch_counter):
            run_on_main(begin_training, args=(self,))
        schedule = getattr(self.hparams, "lr_annealing", None)
        if (
            schedule is not None
            and self.hparams.fidelity == "corrected"
            and self.optimizer_step == 0
        ):
            # SpeechBrain's schedulers act after a step: without this the very first one is taken at full rate
            schedule(self.optimizer)

    def _take_up_changes(self):
        """Tell what a resumed run changes, and refuse a rate that its schedule would not take up."""
        changes = getattr(self.hparams, "changed_options", {})
        if not changes or not self.optimizer_step:
            return
        if "lr" in changes and getattr(self.hparams, "lr_plateau", None) is not None:
            before, now = changes["lr"]
            raise SystemExit(
                f"--lr {now}: the rate of this run falls with its results, and its checkpoints hold it; give "
                f"--lr {before}, or another --output_folder"
            )
        tell_changes(changes)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Move the learning rate on after every optimiser step."""
        if should_step and getattr(self.hparams, "lr_annealing", None) is not None:
            self.hparams.lr_annealing(self.optimizer)

    @property
    def is_last_epoch(self):
        """Whether the epoch that runs is the last, by the number of epochs or of steps."""
        return _is_over(self.hparams.epoch_counter) or bool(self._optimizer_step_limit_exceeded)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage, and save: a checkpoint after validation, the results after a test."""
        if stage == sb.Stage.TRAIN:
            self.unreadable.gather()
        elif self.left_out and not self.batches_read:
            self.unreadable.stop(f"{self.items} of {self.test_name or 'the validation'}")
        self.odd.tell()
        if stage == sb.Stage.TRAIN:
            self.train_stats = self.training_stats(stage_loss)
        elif stage == sb.Stage.VALID:
            self.end_epoch(epoch, self.stage_stats(stage, stage_loss))
        else:
            self.end_test(self.stage_stats(stage, stage_loss))

    def training_stats(self, loss):
        """Statistics of an epoch of training: its loss, seconds and skipped steps, and what else was skipped."""
        seconds = self.cost.epoch_seconds
        stats = {"loss": loss, "seconds": seconds, "skipped steps": self.skipped_steps}
        rare = {
            "non-finite losses": self.nonfinite_losses,
            f"unreadable {self.items}": self.unreadable_items,
        }
        return stats | {name: count for name, count in rare.items() if count}

    def stage_stats(self, stage, loss):
        """Statistics of a validation or a test, by name."""
        return {"loss": loss}

    def selection_of(self, stats):
        """The statistic of a validation that ``selection_key`` names."""
        return stats[self.selection_key]

    def end_epoch(self, epoch, stats):
        """Log a validation, move the rate of ``lr_plateau`` on, and save a checkpoint."""
        self.train_logger.log_stats(
            {"epoch": epoch, "lr": self.last_rate, "steps": self.optimizer_step},
            train_stats=self.train_stats,
            valid_stats=stats,
        )
        plateau = getattr(self.hparams, "lr_plateau", None)
        if plateau is not None:
            _, rate = plateau([self.optimizer], epoch, _comparable(stats[self.plateau_key]))
            set_rate(self.optimizer, rate)
        value = _comparable(self.selection_of(stats))
        stopper = getattr(self.hparams.epoch_counter, "update_metric", None)
        if stopper is not None:
            stopper(value)
        # after the schedule and the counter, whose state the checkpoint holds
        self.save_epoch({self.selection_key: value, "epoch": epoch})

    def save_epoch(self, meta):
        """Save an end-of-epoch checkpoint; keep what averaging wants, the best and the last, and drop the others."""
        self.checkpointer.save_checkpoint(meta)
        best = self.hparams.checkpoint_choice == "best"
        count = at_least_one(self.hparams.avg_checkpoints)
        self.checkpointer.keep_checkpoints(
            [
                # the last ones also for an average of the best, since a later start may choose otherwise
                (None, count),
                (lambda checkpoint: -self.selection_value(checkpoint), count if best else 1),
            ],
            # those saved within an epoch are not averaged: they must not push out one that is
            self._ends_an_epoch,
        )
        if if_main_process():
            record_epoch(self, meta["epoch"])

    def selection_value(self, checkpoint):
        """The statistic of a checkpoint by which it is compared; ``None`` if it was saved within an epoch."""
        return selection_value(checkpoint.meta, self.selection_key)

    def _ends_an_epoch(self, checkpoint):
        return self.selection_value(checkpoint) is not None

    def test_on(self, tests, options):
        """Evaluate test sets.

        Arguments
        ---------
        tests : dict of str: torch.utils.data.Dataset
            Test sets by name.
        options : dict
            Options of their loaders; see :func:`training.loading.loader_options`.
        """
        with one_error_for_a_full_disk(self.checkpointer, self.hparams.output_folder):
            for self.test_name, self.test_set in tests.items():
                self.evaluate(self.test_set, test_loader_kwargs=dict(options))

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the average of the checkpoints to evaluate, once for all test sets.

        Raises
        ------
        SystemExit
            If the run has no checkpoint.
        """
        if self.averaged is not None:
            return
        check_record(self)
        with self._one_error_for_another_model():
            checkpoints, steps = self._load_checkpoints()
            model = self.hparams.model
            model.load_state_dict(average_model(checkpoints, model), strict=True)
        self.optimizer_step = steps
        logger.info(
            "evaluating the average of %d checkpoint(s), epochs %s",
            len(checkpoints),
            ", ".join(str(checkpoint.meta["epoch"]) for checkpoint in checkpoints),
        )
        self.averaged = describe_checkpoints(self, checkpoints)

    def _load_checkpoints(self):
        """Load the last checkpoint, then the foremost of those to average; gives these, and the steps of the last."""

        def find():
            return checkpoints_to_average(
                self.checkpointer,
                self.hparams.checkpoint_choice,
                self.hparams.avg_checkpoints,
                self.selection_key,
            )

        def find_last():
            found = self.checkpointer.find_checkpoint(ckpt_predicate=self._ends_an_epoch)
            return [] if found is None else [found]

        while checkpoints := self.checkpointer.verified(find):
            # the foremost is not always the last, which knows of all the training
            last = self.checkpointer.verified(find_last)
            if not last or not self.checkpointer.try_load(last[0]):
                continue
            steps = self.optimizer_step
            if checkpoints[0].path == last[0].path or self.checkpointer.try_load(checkpoints[0]):
                return checkpoints, steps
        self.checkpointer.refuse_damaged()
        raise SystemExit(
            f"{self.checkpointer.checkpoints_dir}: holds no checkpoint of a whole epoch, so there is nothing to "
            "test; train first, or give the --output_folder of a trained run"
        )

    def end_test(self, stats):
        """Log a test, and record it."""
        self.record_test(self.test_name, stats)

    def record_test(self, test_set, stats, counts=None, **details):
        """Log the statistics of a test set, and put them into the record of the run.

        Arguments
        ---------
        test_set : str
            Name in the results.
        stats : dict of str: float
            Statistics, by name.
        counts : dict of str: int, optional
            Sizes of the test set for the record alone. They or ``stats`` count its ``items``.
        **details : dict
            ``decoding`` and ``conditions`` of :func:`training.recording.record_result`.
        """
        self.train_logger.log_stats({"test set": test_set}, test_stats=stats)
        if if_main_process():
            figures = stats | (counts or {})
            if self.left_out:
                left_out = {"left_out_as_unreadable": self.left_out}
                details["conditions"] = (details.get("conditions") or {}) | left_out
            record_result(self, test_set, figures, figures[self.items], **details)

    @contextlib.contextmanager
    def _one_error_for_another_model(self):
        """Turn torch's list of mismatched keys into one sentence that names the folder."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            if not any(part in str(error) for part in MISMATCHES):
                raise
            first = str(error).strip().splitlines()[-1].strip()
            raise SystemExit(
                f"{self.checkpointer.checkpoints_dir}: the checkpoint there is of another model or optimiser than "
                f"this YAML describes ({first}); give another --output_folder, or the options that the run was "
                "started with"
            ) from error


def _is_over(counter):
    """Whether an epoch counter has no epoch left, or has stopped early."""
    return counter.current >= counter.limit or getattr(counter, "should_stop", False)


def _comparable(value):
    """A loss, or infinity for one that is no number: as the best of all it would push out the best."""
    return value if math.isfinite(value) else math.inf
