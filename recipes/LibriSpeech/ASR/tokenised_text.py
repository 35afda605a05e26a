"""Text as token numbers, and batches of it, for the language model's recipe.

Sentences are written once as numbers that are mapped into memory: a text takes its size in tokens on disk, and little
memory.
"""

import bisect
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from speechbrain.utils.distributed import run_on_main
from text_data import name_texts

from data_prep.contents import stamp
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.files import read_json, write_json
from mamba_speech.text import TextChanges

# of targets past a sentence's end: torch's cross entropy leaves these out
PADDING = -100


class TokenisedText(torch.utils.data.Dataset):
    """Sentences as numbers, mapped from the files that :func:`tokenise` wrote; an item is a sentence's tokens.

    Attributes
    ----------
    lengths : numpy.ndarray
        (sentences,) tokens of each, the end of the sentence included.
    words : int
        Of all sentences.
    sha256 : str
        Of the sentences, a line each.
    """

    def __init__(self, stem):
        self.stem = stem
        record = read_json(f"{stem}.json")
        self.sha256 = record["sha256"]
        self.words, self.left_out = record["words"], record["left_out"]
        self._tokens = np.memmap(f"{stem}.tokens", dtype=record["dtype"], mode="r")
        self._ends = np.memmap(f"{stem}.ends", dtype="<i8", mode="r")
        self.lengths = np.diff(self._ends, prepend=0).astype("int32") + 1

    def __reduce__(self):
        # a loader's worker maps the files too, rather than getting a copy of what is in them
        return TokenisedText, (self.stem,)

    def __len__(self):
        return len(self._ends)

    def __getitem__(self, index):
        start = self._ends[index - 1] if index else 0
        return torch.from_numpy(self._tokens[start : self._ends[index]].astype("int64"))


def tokenise(hparams, tokenizer, name, texts, longest=None):
    """Write the sentences of some texts as numbers, unless an earlier start of this run has.

    Arguments
    ---------
    hparams : dict
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    name : str
        Of the files, in the folder ``text`` of the run.
    texts : list of Text
    longest : int, optional
        Sentences of more tokens are left out.

    Returns
    -------
    TokenisedText

    Raises
    ------
    SystemExit
        With one message, if a text cannot be read, has no sentence, or has a character that the tokenizer lacks.
    """
    stem = Path(hparams["output_folder"]) / "text" / name
    try:
        run_on_main(_write_tokens, args=(tokenizer, stem, texts, longest))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return TokenisedText(stem)


def _write_tokens(tokenizer, stem, texts, longest):
    labels = zlib.crc32("\n".join(tokenizer.labels()).encode())
    source = {"texts": [text.fingerprint() for text in texts], "tokens": labels, "longest": longest}
    # a fingerprint knows the ends of a long text alone
    source["stamps"] = [stamp(text.path) for text in texts]
    record_file = Path(f"{stem}.json")
    if record_file.is_file():
        record = read_json(record_file)
        # earlier versions took no hash, and others no stamps
        same = {"stamps": source["stamps"]} | record["source"] == source
        if same and "sha256" in record:
            return
        record_file.unlink()
    stem.parent.mkdir(parents=True, exist_ok=True)
    counts, changes = {"words": 0, "left_out": 0}, TextChanges(texts[0].policy)
    dtype = "<u2" if len(tokenizer) <= 2**16 else "<i4"
    end, digest = 0, hashlib.sha256()
    with open(f"{stem}.tokens", "wb") as tokens_file, open(f"{stem}.ends", "wb") as ends_file:
        for sentence, tokens in _encoded(tokenizer, texts, changes):
            if longest is not None and len(tokens) > longest:
                counts["left_out"] += 1
                continue
            end += len(tokens)
            counts["words"] += sentence.count(" ") + 1
            digest.update(f"{sentence}\n".encode())
            tokens_file.write(np.asarray(tokens, dtype=dtype).tobytes())
            ends_file.write(end.to_bytes(8, "little"))
    if not end:
        raise ValueError(
            f"{name_texts(texts)}: there is no sentence in it"
            + (f" of at most {longest} tokens (longest_sentence)" if counts["left_out"] else "")
            + (
                ""
                if texts[0].part == "all"
                else ": set another --valid_fraction, or give --valid_text"
            )
        )
    changes.write(stem.with_name(f"text_changes_{stem.name}.csv"), stem.name)
    # without its record the rest does not count, so that a killed run leaves nothing half done
    counts["sha256"] = digest.hexdigest()
    write_json(record_file, {"source": source, "dtype": dtype} | counts)


def _encoded(tokenizer, texts, changes):
    """Yield ``(sentence, tokens)``; a character that the tokenizer lacks is an error."""
    known = {" "}
    for text in texts:
        for number, sentence in text.sentences(changes):
            for character in set(sentence) - known:
                if not tokenizer.decode(tokenizer.encode(character)):
                    raise ValueError(
                        f"{text.path}: line {number} has the character {character!r}, which the tokenizer does not: "
                        "write the text as the tokenizer's was written (--text_case, --text_punctuation), or train "
                        "without --pretrained_tokenizer_file on text that has it"
                    )
                known.add(character)
            yield sentence, tokenizer.encode(sentence)


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
