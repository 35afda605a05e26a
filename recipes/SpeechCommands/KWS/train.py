#!/usr/bin/env python3
"""Train a keyword spotter: Mamba on mel or MFCC features, or RetNet, MobileNetV2 and a CNN as its baselines.

    python train.py hparams/mamba_mel_small.yaml --data_folder speech_commands_v0.02
    python train.py hparams/mamba_mel_small.yaml --data_folder my_words --words all --n_classes 7

The same command again resumes. Any top-level key of the YAML is an option. Source of the published recipe:
Zig302/KWS-Mamba-Project.
"""

import csv
import logging
import os
import time
from pathlib import Path

import speechbrain as sb
import torch
from keyword_data import classes_of, loader_options, make_datasets, prepare_clips
from speechbrain.nnet.schedulers import update_learning_rate
from speechbrain.utils.distributed import if_main_process

from inference.figures import confusion_matrix
from training.brain import RecipeBrain
from training.classification import ConfusionMatrix
from training.experiment import count_parameters, load_experiment
from training.loggers import TrainLoggers
from training.results import record_result

logger = logging.getLogger(__name__)


class KeywordBrain(RecipeBrain):
    """Clip to class."""

    selection_key = "error"

    def compute_forward(self, batch, stage):
        """Logits (batch, classes).

        Raises
        ------
        ValueError
            If a clip's features are not finite numbers; the sentence names the clips.
        """
        batch = batch.to(self.device)
        features, frames = self.modules.compute_features(batch.sig.data, batch.samples)
        finite = torch.isfinite(features).flatten(1).all(1)
        if not finite.all():
            bad = [path for path, good in zip(batch.wav, finite.tolist(), strict=True) if not good]
            raise ValueError(
                f"features that are not finite numbers, of {', '.join(bad)}: repair the recordings or take them out"
            )
        if stage == sb.Stage.TRAIN and self.hparams.fea_augment is not None:
            features, _ = self.hparams.fea_augment(features, frames / features.shape[1])
        return self.modules.model(features, frames)

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy, with smoothed labels while training; the mistakes are counted."""
        smoothing = self.hparams.label_smoothing if stage == sb.Stage.TRAIN else 0.0
        loss = torch.nn.functional.cross_entropy(
            predictions, batch.target, label_smoothing=smoothing
        )
        heard = predictions.argmax(1)
        self.confusion.add(batch.target, heard)
        if stage == sb.Stage.TEST:
            confidence = predictions.softmax(1).amax(1)
            for row in (heard != batch.target).nonzero().flatten().tolist():
                said = self.labels[batch.target[row]], self.labels[heard[row]]
                self.mistakes.append((batch.id[row], batch.wav[row], *said, float(confidence[row])))
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Begin counting."""
        super().on_stage_start(stage, epoch)
        self.stage_began = time.monotonic()
        self.confusion, self.mistakes = ConfusionMatrix(self.labels), []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage, and save: a checkpoint after validation, the result after the test."""
        stats = {"loss": stage_loss}
        if self.confusion.counts.any():
            stats |= self.confusion.figures()
        if stage == sb.Stage.TRAIN:
            seconds = time.monotonic() - self.stage_began
            self.train_stats = {"loss": stage_loss, "accuracy": stats.get("accuracy", 0.0)}
            self.train_stats |= {"seconds": seconds, "skipped steps": self.skipped_steps}
        elif stage == sb.Stage.VALID:
            self._end_validation(stats, epoch)
        else:
            self.train_logger.log_stats({"test set": "test"}, test_stats=stats)
            if if_main_process():
                self._write_test_results(stats)

    def _end_validation(self, stats, epoch):
        meta = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
        meta["steps"] = self.optimizer_step
        valid = {key: stats[key] for key in ("loss", "accuracy", "macro_F1")}
        self.train_logger.log_stats(meta, train_stats=self.train_stats, valid_stats=valid)
        if self.hparams.lr_plateau is not None:
            _, rate = self.hparams.lr_plateau([self.optimizer], epoch, stats["loss"])
            update_learning_rate(self.optimizer, rate)
        # after the schedule, whose state the checkpoint holds
        self.save_epoch({"error": 100 - stats["accuracy"], "epoch": epoch})

    def _write_test_results(self, stats):
        folder = Path(self.hparams.output_folder)
        record_result(self, "test", stats)
        self.confusion.write_per_class(folder / "per_class_test.csv")
        partial = folder / "mistakes_test.partial"
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("ID", "wav", "said", "heard", "confidence"))
            writer.writerows(self.mistakes)
        os.replace(partial, folder / "mistakes_test.csv")
        try:
            confusion_matrix(self.confusion.counts, self.labels, folder / "confusion_test.png")
        except RuntimeError as error:
            # a run without matplotlib loses its picture, not its result
            logger.warning("%s", error)


def main():
    """Prepare, train, test once."""
    hparams, run_opts = load_experiment()
    training = not (hparams["skip_train"] or run_opts.test_only)
    found, labels = prepare_clips(hparams)
    train, valid, test = make_datasets(hparams, found, labels, training)

    brain = KeywordBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.labels = labels
    brain.train_logger = TrainLoggers(
        hparams["train_log"],
        tensorboard_folder=f"{hparams['output_folder']}/tensorboard"
        if hparams["use_tensorboard"]
        else None,
        wandb=hparams["wandb_options"] if hparams["use_wandb"] else None,
    )
    logger.info("%s parameters", f"{count_parameters(hparams['model']):,}")

    if training:
        logger.info("%d clips to train on, %d to validate", len(train), len(valid))
        missing = [label for label in labels if label not in classes_of(train)]
        if missing:
            logger.warning("there is no training clip of %s", ", ".join(missing))
        train_options, valid_options = loader_options(hparams, brain.loader_generator)
        brain.plan_schedule(_batches(len(train), train_options))
        brain.fit(
            hparams["epoch_counter"],
            train,
            valid,
            train_loader_kwargs=train_options,
            valid_loader_kwargs=valid_options,
        )
    brain.evaluate(test, test_loader_kwargs={"batch_size": hparams["test_batch_size"]})


def _batches(clips, options):
    whole, rest = divmod(clips, options["batch_size"])
    batches = whole + (rest > 0 and not options["drop_last"])
    if not batches:
        raise SystemExit(
            f"{clips} training clips do not fill one batch of {options['batch_size']}: set --batch_size lower"
        )
    return batches


if __name__ == "__main__":
    main()
