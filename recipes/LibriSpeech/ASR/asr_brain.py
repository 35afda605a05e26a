"""What the recognition recipes share beside their data: features, error rates, stages, and the order of a run.

A recipe's script adds its losses and its decoders.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import speechbrain as sb
from chunk_sizes import drawn_chunks
from pretrained import start_from
from speech_data import (
    Manifests,
    Transcripts,
    batch_options,
    make_datasets,
    prepare_manifests,
)
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import if_main_process
from splits import PresentSplits
from tokenizer_data import prepare_tokenizer

from mamba_speech.asr.language_model import find_tokenizer
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.evaluation.wer import write_alignments, write_errors
from mamba_speech.text import TextPolicy
from modules.lengths import relative_lengths
from training.brain import RecipeBrain
from training.experiment import is_training, load_experiment, suggest
from training.loading import SeededItems, loader_options

logger = logging.getLogger(__name__)


class Decoding(NamedTuple):
    """A way to decode, and how the results describe it.

    Attributes
    ----------
    decoder : callable
        From what the network gives to a list of texts.
    settings : dict
        Plain values.
    """

    decoder: Callable
    settings: dict


class RecognitionBrain(RecipeBrain):
    """A Brain that hears utterances, counts its errors in them and writes both down.

    A subclass gives ``compute_forward``, ``compute_objectives`` and ``has_decoder``. ``decodings`` maps a stage to its
    ways to decode by the ending that their files and results have: none for the first.

    Attributes
    ----------
    has_decoder : bool
        Whether the model writes its text token by token. Its YAML then has ``max_length``, ``attention_type`` and
        ``pretrained_lm_tokenizer_path``.
    """

    items = "utterances"

    def on_stage_start(self, stage, epoch=None):
        """Begin counting errors and time."""
        super().on_stage_start(stage, epoch)
        self.stage_began, self.seconds_of_audio = time.monotonic(), 0.0
        self.seconds_of_decoding = Counter()
        if stage != sb.Stage.TRAIN:
            self.wer_metrics = {name: _error_rates() for name in self.decodings_of(stage)}
            self.cer_metrics = {
                name: _error_rates(split_tokens=True) for name in self.decodings_of(stage)
            }

    def decodings_of(self, stage):
        """The ways to decode that a stage uses now, by their endings."""
        return self.decodings.get(stage, {})

    def normalised_features(self, batch, stage):
        """Features of a batch, augmented where the stage and the options want it.

        Returns
        -------
        (torch.Tensor, torch.Tensor, torch.Tensor)
            (batch, frames, n_mels); frame counts; relative lengths of the waveforms.
        """
        wavs, wav_lens = batch.sig
        features, lengths = self.hparams.compute_features(wavs, wav_lens)
        epoch = self.hparams.epoch_counter.current
        features = self.modules.normalize(
            features, relative_lengths(lengths, features.shape[1]), epoch=epoch
        )
        if (
            stage == sb.Stage.TRAIN
            and self.hparams.fea_augment is not None
            and self.optimizer_step >= self.hparams.augment_warmup
        ):
            return self.augment(features, lengths, wav_lens)
        return features, lengths, wav_lens

    def chunks(self, stage):
        """Chunks of the encoder for a batch of the training; None for the network's own, and for a whole utterance."""
        if stage != sb.Stage.TRAIN:
            return None
        return drawn_chunks(self.hparams, self.hparams.epoch_counter.current, self.step)

    def augment(self, features, lengths, wav_lens):
        """Mask a batch; see :meth:`normalised_features`."""
        features, _ = self.hparams.fea_augment(features, wav_lens)
        return features, lengths, wav_lens

    def decode(self, stage, encoded, lengths):
        """Texts of a batch by every way to decode that the stage uses, by their endings."""
        hypotheses = {}
        for name, decoding in self.decodings_of(stage).items():
            began = time.monotonic()
            hypotheses[name] = decoding.decoder(encoded, lengths)
            self.seconds_of_decoding[name] += time.monotonic() - began
        return hypotheses

    def ctc_targets(self, batch):
        """Tokens of a batch (utterances, tokens) and their relative lengths, for CTC.

        They are read from the tokens that the end of a sentence follows, since SpeechBrain cannot pad a batch whose
        texts are all empty. A text is empty if the tokenizer lacks all its characters.
        """
        tokens, relative = batch.tokens_eos
        longest = tokens.shape[1]
        return tokens, ((relative * longest).round() - 1) / longest

    def ctc_objective(self, log_probs, intermediate, lengths, tokens, token_lens):
        """The CTC loss, with the intermediate layer's mixed in where there is one."""
        relative = relative_lengths(lengths, log_probs.shape[1])
        loss = self.hparams.ctc_cost(log_probs, tokens, relative, token_lens)
        if intermediate is not None:
            weight = self.hparams.intermediate_weight
            loss = (1 - weight) * loss + weight * self.hparams.ctc_cost(
                intermediate, tokens, relative, token_lens
            )
        return loss

    def count_errors(self, batch, hypotheses):
        """Add a batch to the error rates, and its seconds of audio to their count."""
        spoken = [text.split() for text in batch.wrd]
        # references are under the policy since they were read
        policy = TextPolicy.of(vars(self.hparams))
        for name, texts in hypotheses.items():
            heard = [policy.normalise(text).split() for text in texts]
            self.wer_metrics[name].append(batch.id, heard, spoken)
            self.cer_metrics[name].append(batch.id, heard, spoken)
        seconds = (batch.sig.lengths * batch.sig.data.shape[1]).sum() / self.hparams.sample_rate
        self.seconds_of_audio += float(seconds)

    def stage_stats(self, stage, loss):
        """The loss, and the error rates where a validation decodes."""
        stats = super().stage_stats(stage, loss)
        if stage == sb.Stage.VALID:
            for name in self.decodings_of(stage):
                stats |= self._error_rates_of(name)
        return stats

    def _error_rates_of(self, name):
        return {
            "WER": self.wer_metrics[name].summarize("error_rate"),
            "CER": self.cer_metrics[name].summarize("error_rate"),
        }

    def end_test(self, stats):
        """Write alignments and errors of every way to decode, and record its figures."""
        seconds = time.monotonic() - self.stage_began
        for name, decoding in self.decodings_of(sb.Stage.TEST).items():
            # what the other ways to decode took is not this one's
            others = sum(self.seconds_of_decoding.values()) - self.seconds_of_decoding[name]
            factor = {"RTF": (seconds - others) / max(self.seconds_of_audio, 1e-9)}
            test_set = self.test_name + name
            if if_main_process():
                self._write_errors(test_set, self.wer_metrics[name], self.cer_metrics[name])
            # however it is decoded, the test set is the same
            self.test_lists[test_set] = self.test_lists.get(self.test_name)
            self.record_test(
                test_set,
                stats | self._error_rates_of(name) | factor,
                counts={"utterances": len(self.wer_metrics[name].ids)},
                decoding=decoding.settings,
            )

    def _write_errors(self, test_set, metric, characters):
        folder = self.hparams.output_folder
        write_alignments(f"{folder}/wer_{test_set}.txt", metric, characters)
        write_errors(f"{folder}/errors_{test_set}.csv", metric.scores)


def _error_rates(**options):
    return sb.utils.metric_stats.ErrorRateStats(**options)


class Speech(NamedTuple):
    """The data of a run.

    Attributes
    ----------
    manifests : Manifests
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    train, valid : speechbrain.dataio.dataset.DynamicItemDataset or None
        None where only tests are wanted.
    tests : dict of str: speechbrain.dataio.dataset.DynamicItemDataset
    """

    manifests: Manifests
    tokenizer: Tokenizer
    train: DynamicItemDataset | None
    valid: DynamicItemDataset | None
    tests: dict


def prepare_speech(hparams, has_decoder, training=True):
    """Manifests, tokenizer and data sets of a recipe.

    Arguments
    ---------
    hparams : dict
        Loaded YAML.
    has_decoder : bool
        See :class:`RecognitionBrain`.
    training : bool
        Whether training and validation speech are wanted.

    Returns
    -------
    Speech

    Raises
    ------
    SystemExit
        With one message, if the data cannot be used.
    """
    manifests = prepare_manifests(hparams, training)
    lm = hparams["pretrained_lm_tokenizer_path"] if has_decoder else None
    tokenizer = prepare_tokenizer(
        hparams,
        Transcripts(manifests.train, TextPolicy.of(hparams)) if training else None,
        partial(find_tokenizer, lm, hparams["save_folder"]) if lm else None,
        spare_outputs=not has_decoder,
    )
    return Speech(manifests, tokenizer, *make_datasets(hparams, tokenizer, manifests, has_decoder))


def published_data(hparams, has_decoder):
    """The data of a loaded YAML, for ``dataio_prepare``, which the published scripts define.

    Arguments
    ---------
    hparams : dict
    has_decoder : bool
        See :class:`RecognitionBrain`.

    Returns
    -------
    (Speech, speechbrain.dataio.sampler.DynamicBatchSampler or None, the same)
        The data, and the samplers of training and validation; None without ``dynamic_batching``.
    """
    speech = prepare_speech(hparams, has_decoder)
    stages = {sb.Stage.TRAIN: speech.train, sb.Stage.VALID: speech.valid}
    samplers = [
        batch_options(hparams, stage, items).get("batch_sampler") for stage, items in stages.items()
    ]
    return speech, *samplers


def run_recipe(brain_class, make_decodings, options):
    """Prepare, train, average, test.

    Arguments
    ---------
    brain_class : type
        A :class:`RecognitionBrain`.
    make_decodings : callable
        From (hparams, tokenizer, device) to the ways to decode of each stage; see :class:`RecognitionBrain`.
    options : type
        Declared options of the script.

    Raises
    ------
    SystemExit
        With one message, if an option or the data cannot be used.
    """
    splits = PresentSplits()
    hparams, run_opts = load_experiment(options=options, complete=splits.narrow)
    splits.tell()
    training = is_training(hparams, run_opts)
    manifests, tokenizer, train, valid, tests = prepare_speech(
        hparams, brain_class.has_decoder, training
    )
    lists = {"train": manifests.train, "valid": manifests.valid}
    lists["tokenizer"] = hparams["tokenizer_file"]
    brain = brain_class.from_hparams(
        hparams,
        run_opts,
        {name: Path(path) for name, path in lists.items() if path is not None},
        {name: Path(path) for name, path in manifests.tests.items()},
    )
    if training and hparams["pretrained_model"] and not brain.checkpointer.list_checkpoints():
        start_from(hparams["model"], hparams["pretrained_model"], tokenizer)
    brain.decodings = make_decodings(hparams, tokenizer, brain.device)
    if training:
        brain.train_on(
            SeededItems(train, hparams["seed"]),
            valid,
            batch_options(hparams, sb.Stage.TRAIN, train),
            batch_options(hparams, sb.Stage.VALID, valid),
        )
    brain.test_on(tests, loader_options(hparams, sb.Stage.TEST))
    if training:
        heard = next(iter(tests.values()), valid)
        recording = Path(heard.data[heard.data_ids[0]]["wav"])
        suggest("mamba-speech", "transcribe", Path(hparams["output_folder"]), recording)
