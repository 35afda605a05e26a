"""The Brain of speaker verification: trials in validation and test, whatever the training is."""

import logging
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speaker_data import make_datasets, training_options, validation_options
from speechbrain.utils.distributed import run_on_main
from trial_lists import (
    count_speakers,
    embed_each,
    figures,
    refuse_other_list,
    refuse_unusable,
    score,
    without_files,
    without_unusable,
    write_scores,
)

from mamba_speech.speaker.threshold import write_threshold
from modules.speaker.windows import embed_blocks
from training.brain import RecipeBrain
from training.experiment import suggest
from training.loading import SeededItems
from training.provenance import hash_list

logger = logging.getLogger(__name__)


class VerificationBrain(RecipeBrain):
    """Two recordings to a score.

    A script's Brain adds ``embed_crops`` and ``loss_of_crops``. Validation embeds whole recordings, one at a time, as
    use does, and scores them in trials.
    """

    items = "recordings"
    selection_key = plateau_key = "EER"
    epoch_counts = (*RecipeBrain.epoch_counts, "crops_heard", "crops_right")

    @classmethod
    def from_prepared(cls, hparams, run_opts, prepared):
        """Open the Brain of a loaded experiment and of its data.

        Arguments
        ---------
        hparams : dict
        run_opts : speechbrain.utils.run_opts.RunOptions
        prepared : speaker_data.Prepared
        """
        lists = {name: getattr(prepared, name) for name in ("train", "valid")}
        lists["valid_trials"] = prepared.files["valid_trials"]
        tests = {name: Path(prepared.files[name]) for name in prepared.tests}
        brain = cls.from_hparams(hparams, run_opts, lists, tests)
        brain.prepared = prepared
        if hparams["split"] == "utterance":
            # a classification of known speakers
            brain.selection_key, brain.plateau_key = "error", "loss"
        return brain

    def train_and_test(self, hparams, training):
        """Train, unless the script only tests; then test, and say what to do with the result.

        Arguments
        ---------
        hparams : dict
        training : bool
        """
        if training:
            train, valid = make_datasets(hparams, self.prepared)
            self.train_on(
                SeededItems(train, hparams["seed"]),
                valid,
                training_options(hparams),
                validation_options(hparams),
            )
        self.test_trials()
        if training:
            trials = self.prepared.valid_trials
            pair = [Path(trials.paths[one[0]]) for one in (trials.enrolment, trials.test)]
            suggest("mamba-speech", "verify", Path(hparams["output_folder"]), *pair)

    def compute_forward(self, batch, stage):
        """What the loss of crops needs, or the embedding (1, embedding_size) of a whole recording."""
        if stage == sb.Stage.TRAIN:
            return self.embed_crops(batch.to(self.device))
        return embed_blocks(self.hparams.model, [batch["sig"]])[None].to(self.device)

    def compute_objectives(self, predictions, batch, stage):
        """Loss of the crops; in validation embeddings are kept, and known speakers classified."""
        if stage == sb.Stage.TRAIN:
            return self.loss_of_crops(predictions, batch.target)
        self.embeddings[batch["wav"]] = predictions[0].float().cpu().numpy()
        if batch["target"] < 0:
            return torch.zeros(())
        target = torch.tensor([batch["target"]], device=self.device)
        loss, logits = self.modules.classifier(predictions, target)
        self.valid_losses.append(float(loss))
        self.valid_right.append(int(logits.argmax(1) == target))
        return loss

    def classify(self, embeddings, targets):
        """Loss of the classifier; what it takes for right is counted."""
        loss, logits = self.modules.classifier(embeddings, targets)
        self.crops_heard += len(targets)
        self.crops_right += int((logits.argmax(1) == targets).sum())
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Begin counting."""
        super().on_stage_start(stage, epoch)
        self.embeddings, self.valid_losses, self.valid_right = {}, [], []

    def training_stats(self, loss):
        """Statistics of an epoch of training, and how many crops were classified right."""
        accuracy = 100 * self.crops_right / max(1, self.crops_heard)
        return super().training_stats(loss) | {"accuracy": accuracy}

    def stage_stats(self, stage, loss):
        """Error rates of the validation trials; for known speakers loss and accuracy too."""
        trials = self.prepared.valid_trials
        size = next(iter(self.embeddings.values()), np.zeros(1)).size
        usable = np.array([path in self.embeddings for path in trials.paths])
        if not usable.all():
            try:
                trials = without_files(trials, usable)
            except ValueError:
                self.unreadable.stop("recordings of the validation trials")
        nothing = np.zeros(size)
        vectors = np.stack([self.embeddings.get(path, nothing) for path in trials.paths])
        # of a training that has diverged: a score of chance, and not an end without a checkpoint
        broken = ~np.isfinite(vectors).all(1) | ~vectors.any(1)
        vectors[broken] = 1.0
        stats, _ = figures(trials, score(trials, vectors))
        if self.valid_right:
            accuracy = 100 * sum(self.valid_right) / len(self.valid_right)
            mean = sum(self.valid_losses) / len(self.valid_losses)
            stats = {"loss": mean, "accuracy": accuracy, "error": 100 - accuracy} | stats
        return stats

    def test_trials(self):
        """Set the threshold on the validation trials, then score each list, with the averaged weights.

        Returns
        -------
        None
            The output folder gets ``threshold.json``, a file of scores a list, and the results.
        """
        self.on_evaluate_start()
        run_on_main(self._test_trials)

    def _test_trials(self):
        threshold = self._set_threshold()
        tests = {} if self.hparams.skip_test else self.prepared.tests
        failures = []
        for name, trials in tests.items():
            try:
                folder, file = self.hparams.output_folder, self.prepared.files[name]
                refuse_other_list(folder, name, hash_list(file))
                embeddings = self._embed(trials, name)
                refuse_unusable(name, embeddings)
            except ValueError as error:
                # the other lists are scored all the same
                failures.append(str(error))
                continue
            scores = score(trials, _vectors(embeddings))
            write_scores(Path(self.hparams.output_folder) / f"scores_{name}.csv", trials, scores)
            stats, _ = figures(trials, scores)
            stats |= self._errors_at(threshold, trials.labels, scores)
            self.record_list(name, trials, stats)
        if failures:
            raise SystemExit("\n".join(failures))

    def _set_threshold(self):
        """Write the threshold of the validation trials, and give it."""
        everything = self.prepared.valid_trials
        embeddings = self._embed(everything, "validation")
        try:
            trials = without_unusable(everything, embeddings)
        except ValueError as error:
            raise SystemExit(str(error)) from error
        left_out = len(everything) - len(trials)
        if left_out:
            error = next(one.error for one in embeddings if one.error)
            logger.warning(
                "%d of %d validation trials do not count for the threshold: %s",
                left_out,
                len(everything),
                error,
            )
        stats, threshold = figures(trials, score(trials, _vectors(embeddings)))
        write_threshold(
            self.hparams.threshold_file,
            threshold,
            "validation trials",
            len(trials),
            count_speakers(trials),
            stats["EER"] / 100,
            seed=self.hparams.seed,
            list_hash=hash_list(self.prepared.files["valid_trials"]),
        )
        return threshold

    def _embed(self, trials, name):
        progress = not self.noprogressbar
        return embed_each(self.hparams.model, trials.paths, name, progress)

    def record_list(self, name, trials, stats):
        """Log the figures of a list, and put them into the record of the run."""
        counts = {"trials": len(trials.labels), "recordings": len(trials.files)}
        conditions = {"list": str(self.prepared.files[name]), "speakers": count_speakers(trials)}
        self.record_test(name, stats, counts, conditions=conditions)

    def _errors_at(self, threshold, labels, scores):
        """Misses and false alarms in % at the run's own threshold."""
        accepted, target = scores > threshold, labels == 1
        return {
            "misses": 100 * float((~accepted[target]).mean()),
            "false_alarms": 100 * float(accepted[~target].mean()),
        }


def _vectors(embeddings):
    """Embeddings as (files, embedding_size); ones stand where a recording cannot be used."""
    size = next(len(one.vector) for one in embeddings if one.error is None)
    return np.stack([np.ones(size) if one.error else one.vector for one in embeddings])
