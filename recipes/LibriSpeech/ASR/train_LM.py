#!/usr/bin/env python3
"""Train a Mamba language model on any text, for the decoding of a recogniser with the same tokenizer.

    python train_LM.py hparams/LM/mamba_mini.yaml --text_files '[a.txt, b.txt.gz]' --valid_text v.txt
    python train_LM.py hparams/LM/mamba_mini.yaml --text_files t.gz --pretrained_tokenizer_file RUN/save/tokenizer.model
    python train_S2S.py ... --pretrained_lm_tokenizer_path LM_RUN

The same command again resumes. Any top-level key of the YAML is an option. Source of the model: "Mamba: Linear-Time
Sequence Modeling with Selective State Spaces" (arXiv 2312.00752), section 4.2.
"""

import logging
import math
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from options import LMOptions
from splits import PresentSplits
from text_data import TextSample, find_texts
from tokenised_text import PADDING, TextBatch, TokenBatchSampler, tokenise
from tokenizer_data import prepare_tokenizer

from mamba_speech.asr.language_model import tell_other_policy
from mamba_speech.run import OPTIONS_FILE
from mamba_speech.text import TextPolicy
from training.brain import RecipeBrain
from training.experiment import is_training, load_experiment, suggest
from training.loading import loader_options
from training.script import script

logger = logging.getLogger(__name__)


class LMBrain(RecipeBrain):
    """Tokens to the next one."""

    items = "sentences"
    selection_key = "loss"

    def compute_forward(self, batch, stage):
        """Logits of the next token after every token."""
        return self.modules.model(batch.to(self.device).tokens_bos)

    def compute_objectives(self, predictions, batch, stage):
        """Cross entropy a token, the end of the sentence included, in nats; counted exactly outside training."""
        targets = batch.tokens_eos.to(self.device).flatten()
        loss = torch.nn.functional.cross_entropy(
            predictions.flatten(0, 1).float(), targets, ignore_index=PADDING
        )
        if stage != sb.Stage.TRAIN:
            tokens = int((targets != PADDING).sum())
            self.tokens += tokens
            self.nats += float(loss) * tokens
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Begin counting."""
        super().on_stage_start(stage, epoch)
        self.tokens, self.nats = 0, 0.0

    def stage_stats(self, stage, loss):
        """The loss in nats a token, and the perplexities."""
        loss = self.nats / self.tokens
        stats = {"loss": loss, "perplexity": _perplexity(loss)}
        if stage == sb.Stage.TEST:
            # an end counts as a word, as it does for n-gram toolkits: models with other tokenizers compare
            ends = self.test_set.words + len(self.test_set)
            stats["word perplexity"] = _perplexity(self.nats / ends)
        return stats

    def end_test(self, stats):
        """Log and record a test, with the sizes of the text."""
        counts = {"tokens": self.tokens, "words": self.test_set.words}
        self.record_test(self.test_name, stats, counts | {"sentences": len(self.test_set)})


def _perplexity(nats):
    """The exponential; infinite where that is more than a float holds."""
    return math.exp(nats) if nats < 700 else math.inf


def batch_options(hparams, stage, text):
    """The options of a text's loader, with batches of sentences of like length."""
    training = stage == sb.Stage.TRAIN
    batches = TokenBatchSampler(
        text.lengths,
        hparams["max_batch_length_train" if training else "max_batch_length_val"],
        hparams["max_batch_ex"],
        shuffle=training,
        seed=hparams["seed"],
    )
    return loader_options(hparams, stage, batches, TextBatch.of)


@script
def main():
    """Prepare, train, average, test."""
    splits = PresentSplits()
    hparams, run_opts = load_experiment(options=LMOptions, complete=splits.narrow)
    splits.tell()
    training = is_training(hparams, run_opts)
    train_texts, valid_texts, test_texts = find_texts(hparams, training)
    given = hparams["pretrained_tokenizer_file"]
    tokenizer = prepare_tokenizer(
        hparams,
        TextSample(train_texts, hparams["tokenizer_lines"]) if training else None,
        partial(Path, given) if given else None,
    )
    if given:
        tell_other_policy(TextPolicy.of(hparams), Path(given).absolute().parent.parent)
    if training:
        train = tokenise(hparams, tokenizer, "train", train_texts, hparams["longest_sentence"])
        valid = tokenise(hparams, tokenizer, "valid", valid_texts)
    tests = {
        name: tokenise(hparams, tokenizer, f"test-{name}", texts)
        for name, texts in test_texts.items()
    }
    lists = {"train": train.sha256, "valid": valid.sha256} if training else {}
    lists["tokenizer"] = Path(hparams["tokenizer_file"])
    brain = LMBrain.from_hparams(
        hparams, run_opts, lists, {name: test.sha256 for name, test in tests.items()}
    )
    if training:
        logger.info("%d words to train on", train.words)
        if train.left_out:
            logger.warning(
                "left out of training: %d sentences of more than %d tokens (longest_sentence)",
                train.left_out,
                hparams["longest_sentence"],
            )
        brain.train_on(
            train,
            valid,
            batch_options(hparams, sb.Stage.TRAIN, train),
            batch_options(hparams, sb.Stage.VALID, valid),
        )
    for name, test in tests.items():
        brain.test_on({name: test}, batch_options(hparams, sb.Stage.TEST, test))
    if training:
        suggest("python", Path(__file__).with_name("train_S2S.py"), *search_with(hparams))


def search_with(hparams):
    """Arguments of train_S2S.py that search with this language model.

    A recogniser's run whose tokenizer the model shares is tested anew. Without such a run one is to be trained, and its
    corpus to be filled in.
    """
    lm = ("--pretrained_lm_tokenizer_path", Path(hparams["output_folder"]))
    if hparams["pretrained_tokenizer_file"]:
        run = Path(hparams["pretrained_tokenizer_file"]).absolute().parent.parent
        options = run / OPTIONS_FILE
        # a CTC recogniser searches with no such model
        if options.is_file() and lm[0].strip("-") in options.read_text(encoding="utf-8"):
            return (options, "--test_only", *lm, "--output_folder", run)
    yaml = Path(__file__).parent / "hparams" / "S2S" / "conmamba_mini.yaml"
    vocabulary = ("--output_neurons", hparams["output_neurons"])
    return (yaml, "--data_folder", "LIBRISPEECH", *vocabulary, *lm)


if __name__ == "__main__":
    main()
