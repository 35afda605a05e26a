#!/usr/bin/env python3
"""Train a Mamba language model on any text, for the decoding of a recogniser with the same tokenizer.

    python train_LM.py hparams/LM/mamba_mini.yaml --text_files '[a.txt, b.txt.gz]' --valid_text v.txt
    python train_LM.py hparams/LM/mamba_mini.yaml --text_files t.gz --pretrained_tokenizer_file RUN/save/tokenizer.model
    python train_S2S.py ... --pretrained_lm_tokenizer_path LM_RUN

The same command again resumes. Any top-level key of the YAML is an option. Source of the model: "Mamba: Linear-Time
Sequence Modeling with Selective State Spaces" (arXiv 2312.00752), section 4.2.
"""

import bisect
import logging
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import speechbrain as sb
import torch
from text_data import find_texts, prepare_tokenizer, tokenise

from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.run import OPTIONS_FILE
from training.brain import RecipeBrain
from training.experiment import load_experiment, suggest
from training.loading import loader_options

logger = logging.getLogger(__name__)

# of targets past a sentence's end: torch's cross entropy leaves these out
PADDING = -100


class TokenBatchSampler(torch.utils.data.Sampler):
    """Batches of sentences of like length, with at most so many tokens, padding included.

    Nothing but arrays is held of the whole text. Each epoch has the same number of batches; which sentences of a
    length meet, and the order of the batches, change with it.

    Arguments
    ---------
    lengths : numpy.ndarray
        (sentences,) tokens of each; one of more than ``max_tokens`` makes a batch of its own.
    max_tokens : int
        In a batch.
    max_sentences : int
        In a batch.
    shuffle : bool
    seed : int

    Example
    -------
    >>> import numpy as np
    >>> sampler = TokenBatchSampler(np.array([3, 9, 3, 4]), max_tokens=8, max_sentences=8, shuffle=False)
    >>> list(sampler)
    [[0, 2], [3], [1]]
    """

    def __init__(self, lengths, max_tokens, max_sentences, shuffle=True, seed=0):
        if min(max_tokens, max_sentences) < 1:
            raise SystemExit(
                "--max_batch_tokens and --max_batch_ex must be 1 or more; got "
                f"{max_tokens} and {max_sentences}"
            )
        self.lengths, self.shuffle, self.seed, self.epoch = lengths, shuffle, seed, 0
        ordered = np.sort(lengths)
        starts, start = [], 0
        while start < len(ordered):
            starts.append(start)
            counts = range(1, min(max_sentences, len(ordered) - start) + 1)
            # tokens with padding, which grow with the count: the last sentence is the longest
            fitting = bisect.bisect_right(
                counts, max_tokens, key=lambda n, start=start: n * int(ordered[start + n - 1])
            )
            start += max(1, fitting)
        self.bounds = np.array([*starts, len(ordered)])

    def set_epoch(self, epoch):
        """The order depends on the epoch's number alone, so that a resumed epoch is the same."""
        self.epoch = epoch

    def __len__(self):
        return len(self.bounds) - 1

    def __iter__(self):
        if not self.shuffle:
            order, batches = np.argsort(self.lengths, kind="stable"), np.arange(len(self))
        else:
            chance = np.random.default_rng([self.seed, self.epoch])
            order = chance.permutation(len(self.lengths))
            order = order[np.argsort(self.lengths[order], kind="stable")]
            batches = chance.permutation(len(self))
        for batch in batches:
            yield order[self.bounds[batch] : self.bounds[batch + 1]].tolist()


class TextBatch(NamedTuple):
    """Sentences side by side.

    Attributes
    ----------
    tokens_bos : torch.Tensor
        (batch, tokens + 1): what the model reads; the start of the sentence, then its tokens, then zeros.
    tokens_eos : torch.Tensor
        (batch, tokens + 1): what is to come next, the end of the sentence last, then :data:`PADDING`.
    """

    tokens_bos: torch.Tensor
    tokens_eos: torch.Tensor

    @classmethod
    def of(cls, sentences):
        """Put sentences, each a tensor of tokens, into a batch."""
        start, end = (torch.tensor([token]) for token in Tokenizer.control)
        read = [torch.cat([start, tokens]) for tokens in sentences]
        to_come = [torch.cat([tokens, end]) for tokens in sentences]
        pad = torch.nn.utils.rnn.pad_sequence
        return cls(pad(read, True), pad(to_come, True, PADDING))

    def to(self, device):
        """The same on another device."""
        return TextBatch(*(tensor.to(device) for tensor in self))


class LM(RecipeBrain):
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
        hparams["max_batch_tokens" if training else "max_batch_tokens_val"],
        hparams["max_batch_ex"],
        shuffle=training,
        seed=hparams["seed"],
    )
    return loader_options(hparams, stage, batches, TextBatch.of)


def main():
    """Prepare, train, average, test."""
    hparams, run_opts = load_experiment()
    if hparams["fidelity"] != "corrected":
        raise SystemExit(
            "--fidelity upstream: no language model of Mamba was published with the recipes; leave it at corrected"
        )
    training = not (hparams["skip_train"] or run_opts.test_only)
    train_texts, valid_texts, test_texts = find_texts(hparams, training)
    tokenizer = prepare_tokenizer(hparams, train_texts)
    if training:
        train = tokenise(hparams, tokenizer, "train", train_texts, hparams["longest_sentence"])
        valid = tokenise(hparams, tokenizer, "valid", valid_texts)
    tests = {
        name: tokenise(hparams, tokenizer, f"test-{name}", texts)
        for name, texts in test_texts.items()
    }
    lists = {"train": train.sha256, "valid": valid.sha256} if training else {}
    lists["tokenizer"] = Path(hparams["tokenizer_file"])
    brain = LM.from_hparams(
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
