#!/usr/bin/env python3
"""Train a speech recogniser with CTC: ConMamba, or Conformer as its baseline, on LibriSpeech or one's own speech.

    python train_CTC.py hparams/CTC/conmamba_large.yaml --data_folder LibriSpeech --precision bf16
    torchrun --nproc-per-node=4 train_CTC.py hparams/CTC/conmamba_large.yaml --data_folder LibriSpeech --precision bf16

The same command again resumes. Any top-level key of the YAML is an option. Source of the published recipe:
xi-j/Mamba-ASR, "Speech Slytherin" (arXiv 2407.09732).
"""

import speechbrain as sb
from asr_brain import Decoding, RecognitionBrain, published_data, run_recipe
from options import CTCOptions

from mamba_speech.asr.decoders import BEAM_OPTIONS, CTCDecoder
from training.script import script


class CTCBrain(RecognitionBrain):
    """Waveform to tokens by CTC."""

    has_decoder = False

    def compute_forward(self, batch, stage):
        """Log-probabilities of tokens a frame, their counts, and hypotheses outside training."""
        batch = batch.to(self.device)
        features, lengths, wav_lens = self.normalised_features(batch, stage)
        out = self.modules.model(features, lengths, wav_lens, chunks=self.chunks(stage))
        return out, self.decode(stage, out.log_probs, out.lengths)

    def compute_objectives(self, predictions, batch, stage):
        """The CTC loss, with the intermediate layer's mixed in while training; error rates otherwise."""
        out, hypotheses = predictions
        loss = self.ctc_objective(
            out.log_probs, out.intermediate, out.lengths, *self.ctc_targets(batch)
        )
        if stage != sb.Stage.TRAIN:
            self.count_errors(batch, hypotheses)
        return loss


def make_decodings(hparams, tokenizer, device):
    """The best path to validate, which runs every epoch; for the test sets what the options say."""
    kind, options = hparams["test_decoding"], {key: hparams[key] for key in BEAM_OPTIONS}
    try:
        decoder = CTCDecoder(tokenizer, kind, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"--test_decoding {kind}: {error}") from error
    settings = {"search": kind} | (options if kind == "beam" else {})
    return {
        sb.Stage.VALID: {"": Decoding(CTCDecoder(tokenizer), {"search": "greedy"})},
        sb.Stage.TEST: {"": Decoding(decoder, settings)},
    }


# the names of the published script
ASR = CTCBrain


def dataio_prepare(hparams, tokenizer=None):
    """The data of a loaded YAML, under the published name.

    Arguments
    ---------
    hparams : dict
        With a ``data_folder`` or manifests. They are prepared first.
    tokenizer : object, optional
        Argument of the published function. The run's own tokenizer is taken in any case.

    Returns
    -------
    tuple
        Training set, validation set, test sets by name, and the samplers of training and validation.
    """
    del tokenizer
    speech, *samplers = published_data(hparams, CTCBrain.has_decoder)
    return speech.train, speech.valid, speech.tests, *samplers


@script
def main():
    """Prepare, train, average, test."""
    run_recipe(CTCBrain, make_decodings, CTCOptions)


if __name__ == "__main__":
    main()
