#!/usr/bin/env python3
"""Train a keyword spotter: Mamba on mel or MFCC features, or a baseline: RetNet, GRU, MobileNetV2, DS-CNN, a CNN.

    python train.py hparams/mamba_mel_small.yaml --data_folder speech_commands_v0.02
    python train.py hparams/mamba_mel_small.yaml --data_folder my_words --words all --n_classes 7

The same command again resumes. Any top-level key of the YAML is an option. Source of the published recipe:
Zig302/KWS-Mamba-Project.
"""

import logging
from pathlib import Path

import speechbrain as sb
import torch
from classes import complete_options
from hard_negatives import HardNegatives
from keyword_data import classes_of, keep_clips, make_datasets, prepare_clips, training_options
from options import KeywordOptions
from speechbrain.utils.distributed import if_main_process, run_on_main
from warping import warp_frequencies

from data_prep.keywords.clips import SILENCE
from mamba_speech.evaluation.classification import (
    ConfusionMatrix,
    Prediction,
    write_per_voice,
    write_predictions,
)
from mamba_speech.figures import confusion_matrix
from mamba_speech.kws.events import absent_classes
from training.brain import RecipeBrain
from training.experiment import is_training, load_experiment, suggest
from training.loading import SeededItems, loader_options
from training.script import script

logger = logging.getLogger(__name__)


def no_keyword_loss(logits, quiet, hardest):
    """Minus the logarithm of the probability that no keyword is said, a mean over the hardest moments.

    Most moments of other speech are easy; a spotter rings at the few that sound like a keyword. Source: Sun et al.,
    "Max-pooling loss training of LSTM networks for small-footprint keyword spotting" (SLT 2016).

    Arguments
    ---------
    logits : torch.Tensor
        (moments, classes), one moment at least. No moment holds a keyword.
    quiet : list of bool
        Whether each class is no keyword.
    hardest : float
        Part of the moments that counts, above 0 and up to 1.

    Example
    -------
    >>> import torch
    >>> logits = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    >>> [round(float(no_keyword_loss(logits, [False, True], part)), 2) for part in (1.0, 0.5)]
    [4.5, 9.0]
    """
    quiet = torch.tensor(quiet, device=logits.device)
    losses = logits.logsumexp(1) - logits[:, quiet].logsumexp(1)
    count = max(1, round(hardest * len(losses)))
    return losses.topk(count).values.mean() if count < len(losses) else losses.mean()


class KeywordBrain(RecipeBrain):
    """Clip to class."""

    items = "clips"
    selection_key = "error"
    epoch_counts = (*RecipeBrain.epoch_counts, "clips_heard", "clips_right")
    # pieces of other speech on which the network rings
    hard = None

    def compute_forward(self, batch, stage):
        """Logits (batch, classes).

        Raises
        ------
        ValueError
            If a clip's features are not finite numbers outside training; the sentence names the clips.
        """
        batch = batch.to(self.device)
        features, lengths = self.modules.compute_features(batch.sig.data, batch.samples)
        finite = torch.isfinite(features).flatten(1).all(1)
        # while training, the loss tells
        if stage != sb.Stage.TRAIN and not finite.all():
            bad = [path for path, good in zip(batch.wav, finite.tolist(), strict=True) if not good]
            raise ValueError(
                f"features that are not finite numbers, of {', '.join(bad)}: repair the recordings or take them out"
            )
        if stage == sb.Stage.TRAIN and self.hparams.frequency_warp:
            features = warp_frequencies(features, self.hparams.frequency_warp)
        if stage == sb.Stage.TRAIN and self.hparams.fea_augment is not None:
            features, _ = self.hparams.fea_augment(features, lengths / features.shape[1])
        if stage == sb.Stage.TRAIN and self.hparams.context_seconds:
            # what precedes a clip is read, and not classified
            before = self.modules.compute_features.frames(batch.context)
            window = self.window if self.hparams.context_loss else None
            return self.modules.model(features, lengths, before, window)
        return self.modules.model(features, lengths)

    @property
    def window(self):
        """Frames of the network that a stream averages, as the spotter has them."""
        hop = self.hparams.compute_features.hop_length * self.hparams.model.subsampling
        return max(1, round(self.hparams.clip_seconds * self.hparams.sample_rate) // hop)

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy, with smoothed labels while training, and the loss of keywords heard in the context.

        Mistakes are counted.
        """
        along = None
        if isinstance(predictions, tuple):
            predictions, along = predictions
        smoothing = self.hparams.label_smoothing if stage == sb.Stage.TRAIN else 0.0
        loss = torch.nn.functional.cross_entropy(
            predictions, batch.target, label_smoothing=smoothing
        )
        heard = predictions.argmax(1)
        if stage == sb.Stage.TRAIN:
            self.clips_heard += len(heard)
            self.clips_right += int((heard == batch.target).sum())
            if along is not None and len(along):
                quiet = [label.startswith("_") for label in self.labels]
                worst = no_keyword_loss(along, quiet, self.hparams.context_hardest)
                loss = loss + self.hparams.context_loss * worst
            return loss
        self.confusion.add(batch.target, heard)
        if stage == sb.Stage.TEST:
            self._keep_predictions(batch, predictions, heard)
        return loss

    def _keep_predictions(self, batch, logits, heard):
        """Note what was said and heard in each clip of a test, and how surely."""
        columns = (batch.target, heard, logits.softmax(1).amax(1))
        rows = zip(batch.id, batch.wav, *(column.tolist() for column in columns), strict=True)
        for clip, wav, said, taken, confidence in rows:
            speaker, words = self.test_set.data[clip]["speaker"], self.labels
            self.predictions.append(
                Prediction(clip, wav, speaker, words[said], words[taken], confidence)
            )

    def on_stage_start(self, stage, epoch=None):
        """Begin counting."""
        super().on_stage_start(stage, epoch)
        self.confusion, self.predictions = ConfusionMatrix(self.labels), []

    def training_stats(self, loss):
        """Statistics of an epoch of training, and its accuracy."""
        accuracy = 100 * self.clips_right / max(1, self.clips_heard)
        return super().training_stats(loss) | {"accuracy": accuracy}

    def end_epoch(self, epoch, stats):
        """Look for hard negatives, which the checkpoint holds, then end the epoch as every recipe does."""
        # after the last epoch too, so that a run of more epochs goes on as if it had been one from the start
        if self.hard is not None and epoch + 1 >= self.hparams.context_from_epoch:
            self.hard.search(vars(self.hparams), self.labels, self.device)
        super().end_epoch(epoch, stats)

    def stage_stats(self, stage, loss):
        """Loss and figures of the confusion matrix: for validation the accuracy and F1 alone."""
        stats = {"loss": loss} | self.confusion.figures()
        if stage == sb.Stage.VALID:
            return {name: stats[name] for name in ("loss", "accuracy", "macro_F1")}
        return stats | self.confusion.word_figures()

    def selection_of(self, stats):
        """The error rate."""
        return 100 - stats["accuracy"]

    def end_test(self, stats):
        """Write predictions, figures of each class, the record and a picture of the confusion matrix."""
        folder = Path(self.hparams.output_folder)
        if if_main_process():
            # before the result, so that a run with a result has them
            write_predictions(folder / "predictions_test.csv", self.predictions)
            self.confusion.write_per_class(folder / "per_class_test.csv")
            write_per_voice(folder / "per_voice_test.csv", self.predictions)
        conditions = {"data_folder": str(self.hparams.data_folder)}
        if self.hparams.test_speaker:
            conditions["test_speaker"] = self.hparams.test_speaker
        self.record_test(self.test_name, stats, conditions=conditions)
        if if_main_process():
            try:
                confusion_matrix(self.confusion.counts, self.labels, folder / "confusion_test.png")
            except RuntimeError as error:
                # a run without matplotlib loses its picture, not its result
                logger.warning("%s", error)


@script
def main():
    """Prepare, train, test once."""
    hparams, run_opts = load_experiment(options=KeywordOptions, complete=complete_options)
    training = is_training(hparams, run_opts)
    found, labels = prepare_clips(hparams, training)
    if training:
        run_on_main(keep_clips, args=(found, Path(hparams["save_folder"])))
    hard = None
    if hparams["hard_negatives"]:
        hard = HardNegatives(
            [],
            hparams["hard_negatives"],
            hparams["clip_seconds"],
            hparams["hard_negative_minutes"],
            noises=SILENCE in labels and hparams["computed_silence"] > 0,
        )
    train, valid, test = make_datasets(hparams, found, labels, training, hard)

    listed = ("train", "valid", "labels") if training else ("labels",)
    lists = {name: Path(found[name]) for name in listed}
    brain = KeywordBrain.from_hparams(hparams, run_opts, lists, {"test": Path(found["test"])})
    if hparams["context_loss"] and not any(label.startswith("_") for label in labels):
        raise SystemExit(
            "--context_loss needs a class for what is no keyword: list the words in --words and set "
            "--unknown_percentage above 0, or set --context_loss 0"
        )
    brain.labels, brain.hard = labels, hard
    if hard is not None:
        brain.checkpointer.add_recoverable("hard_negatives", hard)

    if training:
        if sentence := absent_classes(labels):
            logger.warning("for listening to a stream: %s", sentence)
        missing = [label for label in labels if label not in classes_of(train)]
        if missing:
            logger.warning("there is no training clip of %s", ", ".join(missing))
        brain.train_on(
            SeededItems(train, hparams["seed"]),
            valid,
            training_options(hparams),
            loader_options(hparams, sb.Stage.VALID),
        )
    brain.test_on({"test": test}, loader_options(hparams, sb.Stage.TEST))
    if training:
        recording = Path(test.data[test.data_ids[0]]["wav"])
        suggest("mamba-speech", "spot", Path(hparams["output_folder"]), recording)


if __name__ == "__main__":
    main()
