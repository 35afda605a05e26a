#!/usr/bin/env python3
"""Train a speaker encoder: bidirectional Mamba or a Transformer, on filterbanks or on a self-supervised network.

    python train.py hparams/mamba_fbank.yaml --data_folder voxceleb
    python train.py hparams/mamba_fbank.yaml --data_folder voxceleb --fine_tune results/mamba_fbank/1

The first command trains, and resumes if it is given again. The second fine-tunes its result with a larger margin and
longer crops (Garcia-Romero et al., "MagNetO: X-vector magnitude estimation network plus offset", Odyssey 2020).
Any top-level key of the YAML is an option.
"""

import torch
from options import EncoderTrainingOptions
from speaker_brain import VerificationBrain
from speaker_data import keep_data, prepare_speakers
from starting import add_classifier, complete_options, is_new, load_teacher, start_from_run

from modules.speaker.parameter_groups import layerwise_groups
from training.experiment import is_training, load_experiment
from training.script import script


class SpeakerBrain(VerificationBrain):
    """Crop to speaker."""

    def parameter_groups(self):
        """Parameter groups of the optimiser; layers of a pretrained network have rates of their own."""
        options = vars(self.hparams)
        if "lr_front_end" not in options:
            return super().parameter_groups()
        return layerwise_groups(
            list(self.modules.values()),
            options["lr"],
            options["lr_front_end"],
            options["lr_decay"],
            options["weight_decay"],
        )

    def embed_crops(self, batch):
        """Embeddings (batch, embedding_size) of crops."""
        wavs = batch.sig.data
        samples = torch.full(wavs.shape[:1], wavs.shape[1], device=wavs.device)
        change = getattr(self.hparams, "fea_augment", None)
        if change is None:
            return self.modules.model(wavs, samples)

        def augment(features, lengths):
            return change(features, lengths / features.shape[1])[0]

        return self.modules.model(wavs, samples, augment=augment)

    def loss_of_crops(self, embeddings, targets):
        """Loss of the classes, one of each speaker and speed."""
        return self.classify(embeddings, targets)


@script
def main():
    """Prepare, train, test."""
    hparams, run_opts = load_experiment(options=EncoderTrainingOptions, complete=complete_options)
    training = is_training(hparams, run_opts)
    prepared = prepare_speakers(hparams)
    if training:
        keep_data(hparams, prepared)
    classifier = add_classifier(hparams, prepared.speakers)
    if training and is_new(hparams):
        if hparams["fine_tune"]:
            start_from_run(
                hparams["fine_tune"],
                hparams["model"],
                classifier,
                prepared.speakers,
                hparams["speeds"],
            )
        elif "ssl_source" in hparams:
            load_teacher(hparams["front_end"], hparams, "ssl_source")
    brain = SpeakerBrain.from_prepared(hparams, run_opts, prepared)
    brain.train_and_test(hparams, training)


if __name__ == "__main__":
    main()
