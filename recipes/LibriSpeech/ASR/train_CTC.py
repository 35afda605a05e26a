#!/usr/bin/env python3
"""Train a speech recogniser with CTC: ConMamba, or Conformer as its baseline, on LibriSpeech or one's own speech.

    python train_CTC.py hparams/CTC/conmamba_large.yaml --data_folder LibriSpeech --precision bf16
    torchrun --nproc-per-node=4 train_CTC.py hparams/CTC/conmamba_large.yaml --data_folder LibriSpeech --precision bf16

The same command again resumes. Any top-level key of the YAML is an option. Source of the published recipe:
xi-j/Mamba-ASR, "Speech Slytherin" (arXiv 2407.09732).
"""

import logging
import time

import speechbrain as sb
from speech_data import loader_options, make_datasets, prepare_manifests, prepare_units
from speechbrain.utils.distributed import if_main_process

from inference.recognition import BEAM_OPTIONS, CTCDecoder
from modules.lengths import relative_lengths
from training.brain import RecipeBrain
from training.experiment import count_parameters, load_experiment
from training.loggers import TrainLoggers
from training.results import record_result

logger = logging.getLogger(__name__)


class ASR(RecipeBrain):
    """Waveform to units by CTC."""

    def compute_forward(self, batch, stage):
        """Log-probabilities of units a frame, their counts, and hypotheses outside training."""
        batch = batch.to(self.device)
        wavs, wav_lens = batch.sig
        features, frames = self.hparams.compute_features(wavs, wav_lens)
        epoch = self.hparams.epoch_counter.current
        features = self.modules.normalize(
            features, relative_lengths(frames, features.shape[1]), epoch=epoch
        )
        if stage == sb.Stage.TRAIN and self.hparams.fea_augment is not None:
            features, _ = self.hparams.fea_augment(features, wav_lens)
        log_probs, frames, intermediate = self.modules.model(features, frames, wav_lens)
        hypotheses = None
        if stage == sb.Stage.VALID:
            hypotheses = self.decode_valid(log_probs, frames)
        elif stage == sb.Stage.TEST:
            hypotheses = self.decode_test(log_probs, frames)
        return log_probs, frames, intermediate, hypotheses

    def compute_objectives(self, predictions, batch, stage):
        """The CTC loss, with the intermediate layer's mixed in while training; error rates otherwise."""
        log_probs, frames, intermediate, hypotheses = predictions
        tokens, token_lens = batch.tokens
        if stage == sb.Stage.TRAIN and self.hparams.fea_augment is not None:
            tokens = self.hparams.fea_augment.replicate_labels(tokens)
            token_lens = self.hparams.fea_augment.replicate_labels(token_lens)
        relative = relative_lengths(frames, log_probs.shape[1])
        loss = self.hparams.ctc_cost(log_probs, tokens, relative, token_lens)
        if intermediate is not None:
            weight = self.hparams.intermediate_weight
            loss = (1 - weight) * loss + weight * self.hparams.ctc_cost(
                intermediate, tokens, relative, token_lens
            )
        if stage != sb.Stage.TRAIN:
            spoken = [text.split() for text in batch.wrd]
            heard = [text.split() for text in hypotheses]
            self.wer_metric.append(batch.id, heard, spoken)
            self.cer_metric.append(batch.id, heard, spoken)
            self.seconds_of_audio += (
                float((batch.sig.lengths * batch.sig.data.shape[1]).sum())
                / self.hparams.sample_rate
            )
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Begin counting errors and time."""
        super().on_stage_start(stage, epoch)
        self.stage_began, self.seconds_of_audio = time.monotonic(), 0.0
        if stage != sb.Stage.TRAIN:
            self.wer_metric = sb.utils.metric_stats.ErrorRateStats()
            self.cer_metric = sb.utils.metric_stats.ErrorRateStats(split_tokens=True)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage, and save: a checkpoint after validation, the alignments and the result after a test."""
        seconds = time.monotonic() - self.stage_began
        stats = {"loss": stage_loss}
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats | {"seconds": seconds, "skipped steps": self.skipped_steps}
            return
        stats["WER"] = self.wer_metric.summarize("error_rate")
        stats["CER"] = self.cer_metric.summarize("error_rate")
        if stage == sb.Stage.VALID:
            meta = {
                "epoch": epoch,
                "lr": self.hparams.lr_annealing.current_lr,
                "steps": self.optimizer_step,
            }
            self.train_logger.log_stats(meta, train_stats=self.train_stats, valid_stats=stats)
            self.save_epoch({"WER": stats["WER"], "epoch": epoch})
            return
        stats["RTF"] = seconds / max(self.seconds_of_audio, 1e-9)
        self.train_logger.log_stats({"test set": self.test_name}, test_stats=stats)
        if if_main_process():
            with open(
                f"{self.hparams.output_folder}/wer_{self.test_name}.txt", "w", encoding="utf-8"
            ) as file:
                self.wer_metric.write_stats(file)
            record_result(self, self.test_name, stats | {"utterances": len(self.wer_metric.ids)})


def make_decoder(hparams, units):
    """The decoder of the test sets, as the options say."""
    try:
        return CTCDecoder(
            units, hparams["test_decoding"], **{key: hparams[key] for key in BEAM_OPTIONS}
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"--test_decoding {hparams['test_decoding']}: {error}") from error


def main():
    """Prepare, train, average, test."""
    hparams, run_opts = load_experiment()
    training = not (hparams["skip_train"] or run_opts.test_only)
    manifests = prepare_manifests(hparams, training)
    units = prepare_units(hparams, manifests[0])
    train, valid, tests = make_datasets(hparams, units, *manifests)
    decoder = make_decoder(hparams, units)

    brain = ASR(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    # validation runs every epoch, so it takes the fast way
    brain.decode_valid, brain.decode_test = CTCDecoder(units), decoder
    brain.train_logger = TrainLoggers(
        hparams["train_log"],
        tensorboard_folder=f"{hparams['output_folder']}/tensorboard"
        if hparams["use_tensorboard"]
        else None,
        wandb=hparams["wandb_options"] if hparams["use_wandb"] else None,
    )
    logger.info("%s parameters", f"{count_parameters(hparams['model']):,}")

    if training:
        logger.info("%d utterances to train on, %d to validate", len(train), len(valid))
        train_options, valid_options, brain.train_sampler = loader_options(hparams, train, valid)
        train_options["generator"] = brain.loader_generator
        brain.plan_schedule(
            len(train_options.get("batch_sampler", range(-(-len(train) // hparams["batch_size"]))))
        )
        brain.fit(
            hparams["epoch_counter"],
            train,
            valid,
            train_loader_kwargs=train_options,
            valid_loader_kwargs=valid_options,
        )
    for brain.test_name, test in tests.items():
        brain.evaluate(test, test_loader_kwargs={"batch_size": hparams["test_batch_size"]})


if __name__ == "__main__":
    main()
