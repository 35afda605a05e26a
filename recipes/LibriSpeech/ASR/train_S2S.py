#!/usr/bin/env python3
"""Train a recogniser that reads and writes: ConMamba or Conformer, and a Transformer or Mamba decoder behind it.

    python train_S2S.py hparams/S2S/conmamba_large.yaml --data_folder LibriSpeech --precision bf16
    torchrun --nproc-per-node=4 train_S2S.py hparams/S2S/conmamba_large.yaml --data_folder LibriSpeech --precision bf16

The same command again resumes. Any top-level key of the YAML is an option. Sources: xi-j/Mamba-ASR, "Speech
Slytherin" (arXiv 2407.09732), for the recipe; Watanabe et al., "Hybrid CTC/attention architecture for end-to-end
speech recognition" (2017), for its loss and its search.
"""

import speechbrain as sb
import torch
from asr_brain import Decoding, RecognitionBrain, published_data, run_recipe
from options import S2SOptions
from speechbrain.utils.Accuracy import AccuracyStats

from mamba_speech.asr.decoders import S2S_OPTIONS, S2SDecoder
from mamba_speech.asr.language_model import PUBLISHED_SIZES, load_language_model
from mamba_speech.text import TextPolicy
from modules.asr.consistency import consistency_loss
from training.script import script


class S2SBrain(RecognitionBrain):
    """Waveform to tokens by an encoder with a CTC head and an autoregressive decoder."""

    has_decoder = True
    # of the decoder that is told the truth so far, in %
    selection_key = "token_error"

    def compute_forward(self, batch, stage):
        """What the network gives, and hypotheses where the stage searches for them."""
        batch = batch.to(self.device)
        features, lengths, wav_lens = self.normalised_features(batch, stage)
        tokens_bos = _repeat_to(len(lengths), batch.tokens_bos.data)
        out = self.modules.model(features, lengths, tokens_bos, wav_lens, chunks=self.chunks(stage))
        return out, self.decode(stage, out.encoded, out.lengths)

    def augment(self, features, lengths, wav_lens):
        """Mask a batch; with ``consistency_weight`` twice, one masked view after the other."""
        if self.hparams.consistency_weight > 0:
            features, lengths, wav_lens = (
                torch.cat([rows, rows]) for rows in (features, lengths, wav_lens)
            )
        return super().augment(features, lengths, wav_lens)

    def compute_objectives(self, predictions, batch, stage):
        """CTC's and the decoder's loss, weighted; outside training also the errors of both kinds."""
        out, hypotheses = predictions
        rows = len(out.lengths)
        tokens, token_lens = (_repeat_to(rows, part) for part in self.ctc_targets(batch))
        tokens_eos, eos_lens = (_repeat_to(rows, part) for part in batch.tokens_eos)
        mean = self.hparams.loss_reduction == "mean"

        ctc = self.ctc_objective(
            out.ctc_log_probs, out.intermediate, out.lengths, tokens, token_lens
        )
        if rows > len(batch.id):
            counts = (token_lens * tokens.shape[1]).round().clamp(min=1)
            ctc = ctc + self.hparams.consistency_weight * consistency_loss(
                out.ctc_log_probs, out.lengths, counts if mean else None
            )
        sequence = self.hparams.seq_cost(out.seq_log_probs, tokens_eos, length=eos_lens)
        if mean:
            # a sum over tokens divided by utterances so far, since SpeechBrain's mean is a sum with smoothing
            sequence = sequence * rows / (eos_lens * tokens_eos.shape[1]).round().sum()
        if stage != sb.Stage.TRAIN:
            self.count_errors(batch, hypotheses)
            self.accuracy.append(out.seq_log_probs, tokens_eos, eos_lens)
        return self.hparams.ctc_weight * ctc + (1 - self.hparams.ctc_weight) * sequence

    def on_stage_start(self, stage, epoch=None):
        """Begin counting errors, time and right tokens."""
        super().on_stage_start(stage, epoch)
        self.accuracy = AccuracyStats()

    def decodings_of(self, stage):
        """The searches of a stage: for validation in every ``valid_search_interval``-th epoch and the last."""
        epoch, interval = self.hparams.epoch_counter.current, self.hparams.valid_search_interval
        if stage == sb.Stage.VALID and epoch % interval and not self.is_last_epoch:
            return {}
        return super().decodings_of(stage)

    def stage_stats(self, stage, loss):
        """Statistics, and the share of tokens, in %, that the decoder gets wrong when all before them are given."""
        token_error = 100 * (1 - self.accuracy.summarize())
        return {"loss": loss, "token_error": token_error} | super().stage_stats(stage, loss)


def _repeat_to(rows, tensor):
    """``tensor`` (batch, ...) as often as makes it ``rows`` long: twice where a batch has two views."""
    return torch.cat([tensor] * (rows // len(tensor)))


def make_decodings(hparams, tokenizer, device):
    """Beam searches: a narrow one to validate, wide ones for the test sets, without and with a language model."""
    _check_options(hparams)
    options = {argument: hparams[name] for name, argument in S2S_OPTIONS.items()}
    # as published: a narrow search whose distributions are taken as they are
    narrow = options | {"beam_size": hparams["valid_beam_size"], "temperature": 1.0}
    source = None if hparams["no_lm"] else hparams["pretrained_lm_tokenizer_path"]
    model = hparams["model"]
    valid = {"": _search(model, tokenizer, narrow)}
    test = {"": _search(model, tokenizer, options)}
    if source is not None:
        try:
            lm, _ = load_language_model(
                source,
                tokenizer,
                hparams["save_folder"],
                hparams["output_neurons"],
                {name: hparams[name] for name in PUBLISHED_SIZES},
                TextPolicy.of(hparams),
            )
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from error
        test["_lm"] = _search(model, tokenizer, options, lm.to(device), source)
    return {sb.Stage.VALID: valid, sb.Stage.TEST: test}


def _check_options(hparams):
    if hparams["consistency_weight"] > 0 and hparams["fea_augment"] is None:
        raise SystemExit(
            "--consistency_weight compares two masked views of each batch: it needs fea_augment, or must be 0"
        )


def _search(model, tokenizer, options, lm=None, source=None):
    settings = {name: options[name] for name in ("beam_size", "ctc_weight", "ctc_scoring")}
    if lm is not None:
        settings |= {"lm": str(source), "lm_weight": options["lm_weight"]}
    try:
        return Decoding(S2SDecoder(model, tokenizer, lm=lm, **options), settings)
    except ValueError as error:
        # which begins with the option's name
        raise SystemExit(f"--{error}") from error


# the names of the published script
ASR = S2SBrain


def dataio_prepare(hparams):
    """The data of a loaded YAML, under the published name.

    Arguments
    ---------
    hparams : dict
        With a ``data_folder`` or manifests. They are prepared first.

    Returns
    -------
    tuple
        Training set, validation set, test sets by name, tokenizer, and the samplers of training and validation.
    """
    speech, *samplers = published_data(hparams, S2SBrain.has_decoder)
    return speech.train, speech.valid, speech.tests, speech.tokenizer, *samplers


@script
def main():
    """Prepare, train, average, test."""
    run_recipe(S2SBrain, make_decodings, S2SOptions)


if __name__ == "__main__":
    main()
