"""The Brain that every recipe's Brain extends: decay groups, clipping, exact resuming, averaged weights."""

import logging

import speechbrain as sb
import torch
import yaml
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch.nn.parallel import DistributedDataParallel

from mamba_speech.run import average_model, checkpoints_to_average, selection_value
from modules.ssm import parameter_groups
from training.checkpoints import RandomState
from training.cost import TrainingCost
from training.experiment import count_parameters
from training.loading import stop_workers
from training.loggers import TrainLoggers
from training.recording import begin_training, check_record, describe_checkpoints, record_epoch

logger = logging.getLogger(__name__)


@register_checkpoint_hooks
class RecipeBrain(sb.Brain):
    """SpeechBrain's Brain with what all recipes here need.

    - Weight decay spares ``A_log``, ``D``, the step's bias, norms and biases (with ``fidelity: upstream`` nothing is
      spared, as in the published system), and clipping covers all parameter groups together.
    - The random state is a recoverable, so that a resumed run continues as if it had never stopped.
    - What training has cost so far, in seconds and memory, is another (``cost``); what an epoch counts
      (``epoch_counts``) is kept by a checkpoint within it.
    - What the run was, and came to, stands in its record; see docs/results.md.
    - A checkpoint of another model is refused with one sentence.

    The YAML gives ``fidelity``, ``avg_checkpoints`` and ``checkpoint_choice`` (``best`` by ``selection_key``, or
    ``last``); the scheduler, if there is one, is ``lr_annealing``.
    """

    # stage statistic by which checkpoints are compared; lower is better
    selection_key = "WER"
    # names under which a recipe's earlier versions saved it
    earlier_selection_keys = ()
    # what is noted of an epoch of training: attributes that begin at 0 with each
    epoch_counts = ("skipped_steps", "last_rate")

    @classmethod
    def from_hparams(cls, hparams, run_opts, lists=None, test_lists=None):
        """The Brain of a loaded experiment, its checkpoints and its logs open.

        Arguments
        ---------
        hparams : dict
        run_opts : speechbrain.utils.run_opts.RunOptions
            Both as :func:`training.experiment.load_experiment` gives them.
        lists, test_lists : dict of str: Path or str
            What the run is trained on (``train``, ``valid``, ``tokenizer``, ``labels``) and its test sets, for its
            record: files, or hashes.
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
        self.cost = TrainingCost(self.device)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("random_state", RandomState(), optional_load=True)
            self.checkpointer.add_recoverable("cost", self.cost, optional_load=True)
        self._set_epoch, self._loaders = None, []
        # of the record: the checkpoints that are tested, this start of the script, and its lists
        self.averaged = self.session = None
        self.lists, self.test_lists = {}, {}
        self._reset_counts()
        # of the training loader; see on_stage_start
        self.loader_generator = torch.Generator()
        self._clip_norm = None
        if self.hparams.fidelity == "corrected":
            # SpeechBrain clips the first parameter group only: all are clipped together as the optimiser steps
            self._clip_norm, self.max_grad_norm = self.max_grad_norm, float("inf")

    def init_optimizers(self):
        """Build the optimiser with two parameter groups; see :func:`modules.ssm.parameter_groups`."""
        modules = list(self.modules.values())
        if self.hparams.fidelity == "upstream":
            groups = [p for module in modules for p in module.parameters() if p.requires_grad]
        else:
            # what decays is the optimiser's own setting; the second group's is 0
            groups = parameter_groups(modules, weight_decay=None)
            del groups[0]["weight_decay"]
        self.optimizer = self.opt_class(groups)
        self.optimizers_dict = {"opt_class": self.optimizer}
        self.optimizer.register_step_pre_hook(self._note_rate)
        if self._clip_norm is not None and self._clip_norm > 0:
            self.optimizer.register_step_pre_hook(self._clip_all_groups)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

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

    def make_dataloader(self, *arguments, **options):
        """Make a loader, whose workers end with the training; see SpeechBrain's method."""
        loader = super().make_dataloader(*arguments, **options)
        self._loaders.append(loader)
        return loader

    def fit(self, epoch_counter, train_set, *arguments, **options):
        """Train; see SpeechBrain's method. A training set with ``set_epoch`` is told each epoch that begins."""
        self._set_epoch = getattr(train_set, "set_epoch", None)
        try:
            super().fit(epoch_counter, train_set, *arguments, **options)
        finally:
            while self._loaders:
                stop_workers(self._loaders.pop())
        # only the main process has begun a session, and only if there was something to train
        if self.session is not None:
            record_epoch(self)

    def _note_rate(self, optimizer, arguments, options):
        self.last_rate = float(optimizer.param_groups[0]["lr"])

    def _clip_all_groups(self, optimizer, arguments, options):
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        torch.nn.utils.clip_grad_norm_(parameters, self._clip_norm)

    def on_fit_start(self):
        """Load the latest checkpoint, then set the first step's learning rate."""
        check_record(self)
        if self.checkpointer is not None:
            self.checkpointer.remove_incomplete()
        with _one_error_for_another_model(self.checkpointer):
            super().on_fit_start()
        self._write_hyperparams()
        if self._optimizer_step_limit_exceeded and not self.step:
            # a finished run that is started again has no epoch to add; one killed before the last epoch's
            # validation has that to do
            self.hparams.epoch_counter.current = self.hparams.epoch_counter.limit
        if self.hparams.epoch_counter.current < self.hparams.epoch_counter.limit:
            run_on_main(begin_training, args=(self,))
        schedule = getattr(self.hparams, "lr_annealing", None)
        if (
            schedule is not None
            and self.hparams.fidelity == "corrected"
            and self.optimizer_step == 0
        ):
            # SpeechBrain's schedulers act after a step: without this the very first one is taken at full rate
            schedule(self.optimizer)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Move the learning rate on after every optimiser step."""
        if should_step and getattr(self.hparams, "lr_annealing", None) is not None:
            self.hparams.lr_annealing(self.optimizer)

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """Between two steps of the optimiser only: accumulated gradients are in no checkpoint."""
        # asked always, since the processes of a distributed run agree on the answer
        due = super()._should_save_intra_epoch_ckpt(last_ckpt_time, steps_since_ckpt)
        return due and self.step % self.grad_accumulation_factor == 0

    def on_stage_start(self, stage, epoch=None):
        """Begin to count, also the time of training, and seed the training loader's own generator.

        Workers are seeded from that generator and not from the process's, which a resumed epoch would
        otherwise advance once more than an uninterrupted one.
        """
        if stage != sb.Stage.TRAIN:
            self.cost.stop()
        else:
            resumed = self.step > 0
            self.cost.start(resumed)
            if not resumed:
                self._reset_counts()
            self.loader_generator.manual_seed(getattr(self.hparams, "seed", 0) + epoch)
            if self._set_epoch is not None:
                self._set_epoch(epoch)

    def epoch_stats(self, epoch):
        """What every recipe logs of an epoch first: its number, the rate of its last step, the steps so far."""
        return {"epoch": epoch, "lr": self.last_rate, "steps": self.optimizer_step}

    def training_stats(self, loss):
        """What every recipe logs of an epoch of training: its loss, seconds and skipped steps."""
        seconds = self.cost.epoch_seconds
        return {"loss": loss, "seconds": seconds, "skipped steps": self.skipped_steps}

    def _reset_counts(self):
        for name in self.epoch_counts:
            setattr(self, name, 0)

    @mark_as_saver
    def _save(self, path):
        """Write SpeechBrain's state of a Brain, and what the epoch has counted so far."""
        super()._save(path)
        counts = {name: getattr(self, name) for name in self.epoch_counts}
        with open(path, "a", encoding="utf-8") as file:
            yaml.dump({"epoch_counts": counts}, file)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        super()._recover(path, end_of_epoch)
        with open(path, encoding="utf-8") as file:
            # checkpoints of earlier versions have no counts
            counts = yaml.safe_load(file).get("epoch_counts", {})
        for name, count in counts.items():
            setattr(self, name, count)

    def check_gradients(self):
        """Drop a step whose gradients are not finite, and count it (``--skip_nonfinite_grads``)."""
        parameters = [p for p in self.modules.parameters() if p.grad is not None]
        if all(torch.isfinite(parameter.grad).all() for parameter in parameters):
            return
        self.skipped_steps += 1
        for parameter in parameters:
            parameter.grad = None

    def _write_hyperparams(self):
        """Put the options beside the checkpoints, now that they are known to fit them."""
        write = getattr(self.hparams, "write_hyperparams", None)
        if write is not None:
            run_on_main(write)

    @property
    def is_last_epoch(self):
        """Whether the epoch that runs is the last, by the number of epochs or of steps."""
        counter = self.hparams.epoch_counter
        return counter.current >= counter.limit or bool(self._optimizer_step_limit_exceeded)

    def plan_schedule(self, batches):
        """Tell a schedule that ends with the training how many steps that is, unless its YAML does.

        Arguments
        ---------
        batches : int
            Batches an epoch, over all processes.

        Raises
        ------
        SystemExit
            If gradients are accumulated over more batches than an epoch has.
        """
        schedule = self.hparams.lr_annealing
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        # SpeechBrain begins to accumulate anew with every epoch: what is left over is dropped
        an_epoch = -(-batches // world) // self.grad_accumulation_factor
        if not an_epoch:
            raise SystemExit(
                f"an epoch has {-(-batches // world)} batches, fewer than --grad_accumulation_factor "
                f"{self.grad_accumulation_factor}, so that no step would be taken: lower it, or make batches smaller"
            )
        if getattr(schedule, "total_steps", None) == 0:
            steps = an_epoch * self.hparams.epoch_counter.limit
            schedule.total_steps = min(steps, self.optimizer_step_limit or steps)

    def save_epoch(self, meta):
        """Save an end-of-epoch checkpoint and drop those that averaging will not want."""
        best = self.hparams.checkpoint_choice == "best"
        self.checkpointer.save_and_keep_only(
            meta=meta,
            num_to_keep=self.hparams.avg_checkpoints,
            importance_keys=[lambda checkpoint: -self.selection_value(checkpoint)] if best else [],
            # those saved within an epoch are not averaged: they must not push out one that is
            ckpt_predicate=self._ends_an_epoch,
        )
        if if_main_process():
            record_epoch(self, meta["epoch"])

    def selection_value(self, checkpoint):
        """The statistic of a checkpoint by which it is compared, under whichever name it was saved; or ``None``."""
        return selection_value(checkpoint.meta, (self.selection_key, *self.earlier_selection_keys))

    def _ends_an_epoch(self, checkpoint):
        return self.selection_value(checkpoint) is not None

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
        checkpoints = checkpoints_to_average(
            self.checkpointer,
            self.hparams.checkpoint_choice,
            self.hparams.avg_checkpoints,
            (self.selection_key, *self.earlier_selection_keys),
        )
        if not checkpoints:
            raise SystemExit(
                f"{self.checkpointer.checkpoints_dir}: holds no checkpoint of a whole epoch, so there is nothing to "
                "test; train first, or give the --output_folder of a trained run"
            )
        with _one_error_for_another_model(self.checkpointer):
            # the foremost is not always the last, which knows of all the training
            last = self.checkpointer.find_checkpoint(ckpt_predicate=self._ends_an_epoch)
            self.checkpointer.load_checkpoint(last)
            steps = self.optimizer_step
            if checkpoints[0].path != last.path:
                self.checkpointer.load_checkpoint(checkpoints[0])
            model = self.hparams.model
            model.load_state_dict(average_model(checkpoints, model), strict=True)
        self.optimizer_step = steps
        logger.info(
            "evaluating the average of %d checkpoint(s), epochs %s",
            len(checkpoints),
            ", ".join(str(checkpoint.meta["epoch"]) for checkpoint in checkpoints),
        )
        self.averaged = describe_checkpoints(self, checkpoints)


def count_batches(items, options, things):
    """Batches that a loader of a training set makes an epoch.

    Arguments
    ---------
    items : int
        In the set.
    options : dict
        The loader's, with ``batch_size`` and ``drop_last``.
    things : str
        What the items are called.

    Raises
    ------
    SystemExit
        If there is none.

    Example
    -------
    >>> count_batches(7, {"batch_size": 2, "drop_last": False}, "clips")
    4
    """
    whole, rest = divmod(items, options["batch_size"])
    batches = whole + (rest > 0 and not options["drop_last"])
    if not batches:
        raise SystemExit(
            f"{items} training {things} do not fill one batch of {options['batch_size']}: set --batch_size lower"
        )
    return batches


class _one_error_for_another_model:
    """Turn torch's list of mismatched keys into one sentence that names the folder."""

    def __init__(self, checkpointer):
        self.folder = None if checkpointer is None else checkpointer.checkpoints_dir

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if (
            kind is not None
            and issubclass(kind, (RuntimeError, ValueError))
            and _is_mismatch(str(error))
        ):
            first = str(error).strip().splitlines()[-1].strip()
            raise SystemExit(
                f"{self.folder}: the checkpoint there is of another model or optimiser than this YAML "
                f"describes ({first}); give another --output_folder, or the options that the run was started with"
            ) from error
        return False


def _is_mismatch(message):
    return any(
        part in message
        for part in ("Error(s) in loading state_dict", "parameter group", "doesn't match the size")
    )
