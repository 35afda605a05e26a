#!/usr/bin/env python3
"""Train a network that takes a mixture of speakers apart: Mamba-TasNet, dual-path Mamba, or SepFormer as baseline.

    python train.py hparams/mambatasnet_XS.yaml --data_folder wsj0-mix/2speakers --base_folder_dm si_tr_s_8k
    python train.py hparams/mambatasnet_mini.yaml --data_folder my_mixtures

The same command again resumes. Any top-level key of the YAML is an option. Source of the published recipe:
xi-j/Mamba-TasNet, "Speech Slytherin" (arXiv 2407.09732) and "Dual-path Mamba" (arXiv 2403.18257).
"""

import logging
from pathlib import Path

import speechbrain as sb
import torch
from options import SeparationOptions
from save_examples import save_example
from separation_data import make_datasets, prepare_mixtures
from speechbrain.utils.distributed import if_main_process

from mamba_speech.evaluation.separation import SeparationScores
from mamba_speech.separation.published import LOSSES, find_weights, read_weights
from modules.separation.separator import initialise_separator_
from modules.separation.si_snr import pit_si_snr, si_snr_improvement
from training.brain import RecipeBrain
from training.experiment import is_training, load_experiment, suggest
from training.loading import loader_options
from training.recording import check_record
from training.script import script
from training.warm_start import load_fitting

logger = logging.getLogger(__name__)


class SeparationBrain(RecipeBrain):
    """Mixture to one waveform a speaker, by the negative SI-SNR under the best order of speakers."""

    items = "mixtures"
    selection_key = LOSSES[0]
    epoch_counts = (*RecipeBrain.epoch_counts, "dropped_mixtures")

    def compute_forward(self, batch, stage):
        """Estimated sources (batch, time, speakers)."""
        batch = batch.to(self.device)
        mix, samples = batch.mix_sig.data, batch.samples.to(self.device)
        if stage == sb.Stage.TRAIN and self.hparams.use_wavedrop:
            mix = self.hparams.drop_chunk(mix, batch.mix_sig.lengths)
            mix = self.hparams.drop_freq(mix)
        estimates = self.modules.model(mix, samples)
        if stage == sb.Stage.TRAIN:
            estimates = estimates.clamp(-self.hparams.clip_wav_max, self.hparams.clip_wav_max)
        return estimates

    def compute_objectives(self, predictions, batch, stage):
        """The loss in dB, averaged over mixtures; while training over those that are not separated well enough."""
        samples = batch.samples.to(self.device)
        targets = self._targets(batch)
        # as published, padding counts like any other silence
        padded = self.hparams.fidelity == "upstream" and stage != sb.Stage.TEST
        losses = -pit_si_snr(predictions, targets, None if padded else samples)[0]
        if stage == sb.Stage.TRAIN:
            return self._training_loss(losses)
        if stage == sb.Stage.VALID:
            si_snr, _ = pit_si_snr(predictions, targets, samples)
            gains = si_snr_improvement(predictions, targets, batch.mix_sig.data, samples)
            self.sums += torch.stack([losses.sum(), si_snr.sum(), gains.sum()]).double().cpu()
            self.mixtures += len(losses)
        else:
            order = self.scores.add(batch.id, predictions, targets, batch.mix_sig.data, samples)
            self._save_examples(batch, predictions, targets, order)
        return losses.mean()

    def _targets(self, batch):
        """(batch, time, speakers)."""
        speakers = range(1, self.hparams.num_spks + 1)
        return torch.stack([batch[f"s{number}_sig"].data for number in speakers], dim=-1)

    def _save_examples(self, batch, estimates, targets, order):
        """Audio and a figure of the first mixtures of the test set."""
        if not (self.hparams.save_audio and if_main_process()):
            return
        for row, samples in enumerate(batch.samples.tolist()):
            if self.saved_examples >= self.hparams.n_audio_to_save:
                return
            self.saved_examples += 1
            valid = slice(samples)
            save_example(
                Path(self.hparams.output_folder) / "audio_results",
                self.saved_examples,
                batch.mix_sig.data[row, valid],
                targets[row, valid],
                estimates[row, valid][:, order[row].to(estimates.device)],
                self.hparams.sample_rate,
            )

    def _training_loss(self, losses):
        """Mean of the losses (mixtures,) that train: easy mixtures are left out, and batches beyond the limit.

        A loss that is no number stays, so that it is seen and counted as such.
        """
        kept = torch.ones_like(losses, dtype=torch.bool)
        if self.hparams.threshold_byloss:
            kept = ~(losses <= self.hparams.threshold)
        loss = losses.where(kept, 0.0).sum() / kept.sum().clamp(min=1)
        if loss >= self.hparams.loss_upper_lim:
            kept = torch.zeros_like(kept)
            loss = losses.where(kept, 0.0).sum()
        count = int(kept.sum())
        self.dropped_mixtures += len(losses) - count
        self.kept_mixtures += count
        return loss

    def optimizers_step(self):
        """Step, unless no mixture was left to learn from: then momentum alone would move the network."""
        if not self.kept_mixtures:
            gradients = [p.grad for p in self.modules.parameters() if p.grad is not None]
            # in a distributed run, another process may have had mixtures to learn from
            if not any(gradient.any() for gradient in gradients):
                self.zero_grad(set_to_none=True)
        self.kept_mixtures = 0
        super().optimizers_step()

    def plan_schedule(self, batches):
        """Tell the schedule how long the training is, and warn if it is all warm-up."""
        super().plan_schedule(batches)
        total_steps = self.hparams.lr_annealing.total_steps
        if total_steps <= self.hparams.n_warmup_steps:
            logger.warning(
                "the %d steps of the schedule are all warm-up, and the rate never comes to --lr: set --n_warmup_steps "
                "below that",
                total_steps,
            )

    def on_fit_start(self):
        """Choose the schedule: the cosine at every step, or the plateau at every epoch after a warm-up."""
        if self.hparams.use_cosine_schedule:
            self.hparams.lr_plateau = None
        else:
            self.hparams.lr_annealing.floor = 1.0
        super().on_fit_start()

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Move the rate on: all along the cosine, or as long as the warm-up lasts."""
        warming_up = self.hparams.lr_annealing.n_steps < self.hparams.n_warmup_steps
        if self.hparams.use_cosine_schedule or warming_up:
            super().on_fit_batch_end(batch, outputs, loss, should_step)

    def on_stage_start(self, stage, epoch=None):
        """Begin counting."""
        super().on_stage_start(stage, epoch)
        if stage == sb.Stage.TRAIN:
            self.kept_mixtures = 0
        elif stage == sb.Stage.VALID:
            self.sums, self.mixtures = torch.zeros(3, dtype=torch.float64), 0
        else:
            self.saved_examples = 0

    def training_stats(self, loss):
        """Statistics of an epoch of training, and how many mixtures it left out."""
        return super().training_stats(loss) | {"dropped mixtures": self.dropped_mixtures}

    def stage_stats(self, stage, loss):
        """The loss and both SI-SNRs of a validation, the scores of a test."""
        if stage == sb.Stage.TEST:
            return self.scores.figures()
        loss, si_snr, gain = (self.sums / self.mixtures).tolist()
        # the last two as in the results: higher is better
        return {"loss": loss, "si-snr": si_snr, "si-snr_i": gain}

    def end_test(self, stats):
        """Write the scores of each mixture, and record the test."""
        if if_main_process():
            self.scores.write(Path(self.hparams.output_folder) / "test_results.csv")
        super().end_test(stats)

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the run's own checkpoints; with none, the pretrained network is what there is to test."""
        check_record(self)
        pretrained = self.hparams.pretrained_separator
        if pretrained and not self.checkpointer.find_checkpoints():
            logger.info("testing %s as it is, since this run has no checkpoint", pretrained)
            return
        if pretrained and self.hparams.skip_train:
            logger.warning(
                "testing the checkpoints of %s and not %s; for that, give an --output_folder without any",
                self.hparams.output_folder,
                pretrained,
            )
        super().on_evaluate_start(max_key, min_key)


@script
def main():
    """Prepare, train, test once."""
    hparams, run_opts = load_experiment(options=SeparationOptions)
    try:
        scores = SeparationScores(hparams["metrics"], hparams["sample_rate"])
    except ValueError as error:
        raise SystemExit(str(error)) from error
    training = is_training(hparams, run_opts)
    found = prepare_mixtures(hparams, training)
    train, valid, test = make_datasets(hparams, found, training)
    initialise_separator_(hparams["model"], hparams["fidelity"])
    if hparams["pretrained_separator"]:
        load_pretrained(hparams["model"], hparams["pretrained_separator"], whole=not training)

    lists = {name: Path(path) for name, path in found.items()}
    tests = {"test": lists.pop("test")}
    brain = SeparationBrain.from_hparams(hparams, run_opts, lists, tests)
    brain.scores = scores
    if training:
        brain.train_on(
            train,
            valid,
            loader_options(hparams, sb.Stage.TRAIN, drop_last=hparams["drop_last"]),
            loader_options(hparams, sb.Stage.VALID),
        )
    brain.test_on({"test": test}, loader_options(hparams, sb.Stage.TEST))
    if training:
        folder = Path(hparams["output_folder"])
        mixture = Path(test.data[test.data_ids[0]]["mix_wav"])
        suggest(
            "mamba-speech", "separate", folder, mixture, "--output_folder", folder / "separated"
        )


def load_pretrained(model, folder, whole=False):
    """Give a network the weights of a folder with ``encoder.ckpt``, ``masknet.ckpt`` and ``decoder.ckpt``.

    Arguments
    ---------
    model : modules.separation.separator.SeparationNetwork
    folder : str or Path
        Such a folder, or the output folder of a run, whose best checkpoint is taken.
    whole : bool
        Whether every weight must fit, as for a test. Training may start from a network for other speakers or sizes:
        what fits is loaded, and the log tells the rest.

    Raises
    ------
    SystemExit
        With one message, if a file is missing or damaged, or if nothing fits.
    """
    try:
        place = find_weights(folder)
        weights = read_weights(place)
        if not whole:
            load_fitting(model, weights, place, "pretrained_separator")
            return
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise SystemExit(
            f"{place}: is of another network than this YAML describes ({reason}); give the YAML and the options that "
            "it was trained with, or another --pretrained_separator"
        ) from error
    except (OSError, ValueError) as error:
        raise SystemExit(f"--pretrained_separator: {error}") from error
    logger.info("weights of %s", place)


if __name__ == "__main__":
    main()
