#!/usr/bin/env python3
"""Train a keyword spotter: Mamba on mel or MFCC features, or RetNet, MobileNetV2 and a CNN as its baselines.

    python train.py hparams/mamba_mel_small.yaml --data_folder speech_commands_v0.02
    python train.py hparams/mamba_mel_small.yaml --data_folder my_words --words all --n_classes 7

The same command again resumes. Any top-level key of the YAML is an option. Source of the published recipe:
Zig302/KWS-Mamba-Project.
"""

import json
import logging
from pathlib import Path

import speechbrain as sb
import torch
from keyword_data import classes_of, loader_options, make_datasets, prepare_clips
from speechbrain.nnet.schedulers import update_learning_rate
from speechbrain.utils.distributed import if_main_process, run_on_main

from mamba_speech.evaluation.classification import ConfusionMatrix, Prediction, write_predictions
from mamba_speech.figures import confusion_matrix
from mamba_speech.files import write_json
from training.brain import RecipeBrain, count_batches
from training.experiment import load_experiment, suggest
from training.lists import hash_list
from training.loading import SeededItems
from training.recording import record_result

logger = logging.getLogger(__name__)


class KeywordBrain(RecipeBrain):
    """Clip to class."""

    selection_key = "error"
    epoch_counts = (*RecipeBrain.epoch_counts, "clips_heard", "clips_right")

    def compute_forward(self, batch, stage):
        """Logits (batch, classes).

        Raises
        ------
        ValueError
            If a clip's features are not finite numbers; the sentence names the clips.
        """
        batch = batch.to(self.device)
        features, lengths = self.modules.compute_features(batch.sig.data, batch.samples)
        finite = torch.isfinite(features).flatten(1).all(1)
        if not finite.all():
            bad = [path for path, good in zip(batch.wav, finite.tolist(), strict=True) if not good]
            raise ValueError(
                f"features that are not finite numbers, of {', '.join(bad)}: repair the recordings or take them out"
            )
        if stage == sb.Stage.TRAIN and self.hparams.fea_augment is not None:
            features, _ = self.hparams.fea_augment(features, lengths / features.shape[1])
        if stage == sb.Stage.TRAIN and self.hparams.context_seconds:
            # what precedes a clip is read, and not classified
            before = self.modules.compute_features.frames(batch.context)
            return self.modules.model(features, lengths, before)
        return self.modules.model(features, lengths)

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy, with smoothed labels while training; the mistakes are counted."""
        smoothing = self.hparams.label_smoothing if stage == sb.Stage.TRAIN else 0.0
        loss = torch.nn.functional.cross_entropy(
            predictions, batch.target, label_smoothing=smoothing
        )
        heard = predictions.argmax(1)
        if stage == sb.Stage.TRAIN:
            self.clips_heard += len(heard)
            self.clips_right += int((heard == batch.target).sum())
            return loss
        self.confusion.add(batch.target, heard)
        if stage == sb.Stage.TEST:
            confidences = predictions.softmax(1).amax(1).tolist()
            clips = zip(
                batch.id, batch.wav, batch.target.tolist(), heard.tolist(), confidences, strict=True
            )
            self.predictions += [
                Prediction(
                    clip,
                    wav,
                    self.speakers[clip],
                    self.labels[said],
                    self.labels[taken],
                    confidence,
                )
                for clip, wav, said, taken, confidence in clips
            ]
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Begin counting."""
        super().on_stage_start(stage, epoch)
        self.confusion, self.predictions = ConfusionMatrix(self.labels), []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage, and save: a checkpoint after validation, the result after the test."""
        if stage == sb.Stage.TRAIN:
            accuracy = 100 * self.clips_right / max(1, self.clips_heard)
            self.train_stats = self.training_stats(stage_loss) | {"accuracy": accuracy}
            return
        stats = {"loss": stage_loss} | self.confusion.figures()
        if stage == sb.Stage.VALID:
            self._end_validation(stats, epoch)
        else:
            self.train_logger.log_stats({"test set": "test"}, test_stats=stats)
            if if_main_process():
                self._write_test_results(stats)

    def _end_validation(self, stats, epoch):
        valid = {key: stats[key] for key in ("loss", "accuracy", "macro_F1")}
        self.train_logger.log_stats(
            self.epoch_stats(epoch), train_stats=self.train_stats, valid_stats=valid
        )
        if self.hparams.lr_plateau is not None:
            _, rate = self.hparams.lr_plateau([self.optimizer], epoch, stats["loss"])
            update_learning_rate(self.optimizer, rate)
        # after the schedule, whose state the checkpoint holds
        self.save_epoch({"error": 100 - stats["accuracy"], "epoch": epoch})

    def _write_test_results(self, stats):
        folder = Path(self.hparams.output_folder)
        # before the result, so that a run with a result has them
        write_predictions(folder / "predictions_test.csv", self.predictions)
        self.confusion.write_per_class(folder / "per_class_test.csv")
        conditions = {"data_folder": str(self.hparams.data_folder)}
        if self.hparams.test_speaker:
            conditions["test_speaker"] = self.hparams.test_speaker
        record_result(self, "test", stats, stats["clips"], conditions=conditions)
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
    if training:
        run_on_main(keep_clips, args=(found, Path(hparams["save_folder"])))
    train, valid, test = make_datasets(hparams, found, labels, training)

    listed = ("train", "valid", "labels") if training else ("labels",)
    lists = {name: Path(found[name]) for name in listed}
    brain = KeywordBrain.from_hparams(hparams, run_opts, lists, {"test": Path(found["test"])})
    brain.labels = labels
    brain.speakers = {clip: row["speaker"] for clip, row in test.data.items()}

    if training:
        logger.info("%d clips to train on, %d to validate", len(train), len(valid))
        missing = [label for label in labels if label not in classes_of(train)]
        if missing:
            logger.warning("there is no training clip of %s", ", ".join(missing))
        train_options, valid_options = loader_options(hparams, brain.loader_generator)
        brain.plan_schedule(count_batches(len(train), train_options, "clips"))
        brain.fit(
            hparams["epoch_counter"],
            SeededItems(train, hparams["seed"]),
            valid,
            train_loader_kwargs=train_options,
            valid_loader_kwargs=valid_options,
        )
    brain.evaluate(test, test_loader_kwargs={"batch_size": hparams["test_batch_size"]})
    if training:
        recording = Path(test.data[test.data_ids[0]]["wav"])
        suggest("mamba-speech", "spot", Path(hparams["output_folder"]), recording)


def keep_clips(found, folder):
    """Note beside the checkpoints which clips a run is trained and validated on; where they lie does not matter.

    Arguments
    ---------
    found : dict
        Paths of the manifests ``train`` and ``valid``.
    folder : Path
        Of the checkpoints.

    Raises
    ------
    SystemExit
        If the checkpoints there come of other clips: their result would be told of these.
    """
    now = {name: hash_list(found[name]) for name in ("train", "valid")}
    record = folder / "clips.json"
    if record.is_file() and any(folder.glob("CKPT*")):
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise SystemExit(
                f"{folder}: the model there was trained with other clips ({' and '.join(changed)} changed): give "
                "another --output_folder, or the data that the run was started with; --test_only tests it on these"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, now)


if __name__ == "__main__":
    main()
