#!/usr/bin/env python3
"""Train a small speaker encoder under a pretrained teacher: distillation and the classes of speakers at once.

    python distill.py hparams/distill/svmixer_wavlm_large.yaml --data_folder voxceleb
    python distill.py hparams/distill/svmixer_wavlm_large.yaml --data_folder voxceleb --student mlp_mixer \\
        --back_end linear --teacher microsoft/wavlm-base-plus
    python distill.py hparams/distill/mamba_fbank_resemblyzer.yaml --data_folder voxceleb

The same command again resumes. What it has trained needs no teacher. Any top-level key of the YAML is an option.
Sources: Heo et al., "One-step knowledge distillation and fine-tuning in using large pre-trained self-supervised
learning models for speaker verification" (arXiv 2305.17394), and the SV-Mixer paper.
"""

import torch
from options import RESEMBLYZER, DistillationOptions
from speaker_brain import VerificationBrain
from speaker_data import keep_data, prepare_speakers
from starting import add_classifier, complete_options, is_new
from teachers import RecordingTargets, keep_teacher, load_teacher

from modules.speaker.distillation import copy_front_end
from training.experiment import is_training, load_experiment
from training.script import script
from training.warm_start import report


class DistillBrain(VerificationBrain):
    """Crop to speaker, and to what the teacher makes of it."""

    epoch_counts = (*VerificationBrain.epoch_counts, "distance_sum")
    teacher = targets = None

    def embed_crops(self, batch):
        """Embeddings (batch, embedding_size) of crops, and their distance from the teacher."""
        wavs = batch.sig.data
        samples = torch.full(wavs.shape[:1], wavs.shape[1], device=wavs.device)
        if self.hparams.teacher == RESEMBLYZER:
            embeddings = self.modules.model(wavs, samples)
            return embeddings, self.modules.distance(embeddings, self._wanted(batch, samples))
        with torch.no_grad():
            wanted, lengths = self.teacher.hidden_states(wavs, samples)
        embeddings, hidden, _ = self.modules.model(wavs, samples, return_hidden=True)
        return embeddings, self.modules.distance(hidden, wanted, lengths)

    def _wanted(self, batch, samples):
        """The teacher's embeddings of the crops, or of the recordings that they come from."""
        if self.hparams.teacher_hears == "crops":
            with torch.no_grad():
                return self.teacher(batch.sig.data, samples)
        if self.targets is None:
            self.targets = RecordingTargets(self.teacher, self.hparams.speeds)
        return self.targets(batch.id, (batch.target // len(self.prepared.speakers)).tolist())

    def loss_of_crops(self, predictions, targets):
        """Loss of the classes, and the weighted distance."""
        embeddings, distance = predictions
        self.distance_sum += float(distance.detach()) * len(targets)
        return self.classify(embeddings, targets) + self.hparams.distillation_weight * distance

    def training_stats(self, loss):
        """Statistics of an epoch of training, and the mean distance from the teacher."""
        mean = self.distance_sum / max(1, self.crops_heard)
        return super().training_stats(loss) | {"distance": mean}


@script
def main():
    """Prepare, distill, test."""
    hparams, run_opts = load_experiment(options=DistillationOptions, complete=complete_options)
    training = is_training(hparams, run_opts)
    prepared = prepare_speakers(hparams)
    if training:
        keep_data(hparams, prepared)
    add_classifier(hparams, prepared.speakers)
    teacher = load_teacher(hparams) if training else None
    if training:
        keep_teacher(teacher, hparams)
    if training and is_new(hparams) and "teacher_config" in hparams:
        copy_front_end(hparams["model"], teacher)
        own, theirs = hparams["model"].state_dict(), teacher.network.state_dict()
        copied = {name for name in own if name.startswith("front_end.")}
        report(
            "teacher",
            hparams["teacher"],
            {name: own[name] for name in copied},
            {name: own[name] for name in own if name not in copied},
            {k: v for k, v in theirs.items() if not k.startswith("feature_extractor.")},
        )
    brain = DistillBrain.from_prepared(hparams, run_opts, prepared)
    if training:
        # beside the modules, since it neither learns nor is saved
        brain.teacher = teacher.to(brain.device)
    brain.train_and_test(hparams, training)


if __name__ == "__main__":
    main()
