"""The Brain of speaker verification: trials in validation and test, whatever the training is."""

import logging
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from trial_lists import count_speakers, embed_list, figures, score, write_scores

from mamba_speech.speaker.threshold import write_threshold
from modules.speaker.windows import embed_blocks
from training.brain import RecipeBrain
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
        vectors = np.stack([self.embeddings[path] for path in trials.paths])
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
        trials = self.prepared.valid_trials
        scores = score(trials, self._embed(trials, "validation"))
        stats, threshold = figures(trials, scores)
        write_threshold(
            self.hparams.threshold_file,
            threshold,
            "validation trials",
            len(trials.labels),
            count_speakers(trials),
            stats["EER"] / 100,
            seed=self.hparams.seed,
            list_hash=hash_list(self.prepared.files["valid_trials"]),
        )
        tests = {} if self.hparams.skip_test else self.prepared.tests
        for name, trials in tests.items():
            scores = score(trials, self._embed(trials, name))
            write_scores(Path(self.hparams.output_folder) / f"scores_{name}.csv", trials, scores)
            stats, _ = figures(trials, scores)
            stats |= self._errors_at(threshold, trials.labels, scores)
            self.record_list(name, trials, stats)

    def _embed(self, trials, name):
        progress = not self.noprogressbar
        return embed_list(self.hparams.model, trials.paths, name, progress)

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
