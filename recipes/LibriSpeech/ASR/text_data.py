"""What the language model's recipe reads: the sentences of text files, and of the transcripts of speech.

A file is read as a stream, so that a text of gigabytes, compressed or not, takes little memory.
"""

import gzip
import os
import random
import zlib
from pathlib import Path
from typing import NamedTuple

from speech_data import prepare_manifests

from mamba_speech.files import read_csv
from mamba_speech.text import TextPolicy


class Text(NamedTuple):
    """Sentences from one file.

    Attributes
    ----------
    path : str
        A text in UTF-8 with a sentence a line, gzip's if its name ends in ``.gz``; or a manifest.
    is_manifest : bool
        Whether the sentences are the transcripts of a manifest that the data preparation wrote.
    part : str
        ``all``, or, by a fixed rule, ``rest`` and ``held_out``.
    held_out : float
        Part of all sentences that the rule holds out.
    policy : mamba_speech.text.TextPolicy
        What happens to the sentences.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("a  sentence\\n\\nanother\\n")
    ...     file.flush()
    ...     [sentence for _, sentence in Text(file.name).sentences()]
    ['a sentence', 'another']
    """

    path: str
    is_manifest: bool = False
    part: str = "all"
    held_out: float = 0.0
    policy: TextPolicy = TextPolicy()

    def sentences(self, changes=None):
        """Yield ``(line number, sentence)`` under the policy; what it leaves out, and empty lines, are passed over.

        Arguments
        ---------
        changes : mamba_speech.text.TextChanges, optional
            Counts of what the policy changes.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not UTF-8, its compression is damaged, or a manifest is no CSV.
        """
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such file; a text has a sentence a line")
        number = 0
        try:
            for number, sentence in enumerate(self._lines(), start=1):
                sentence, changed = self.policy.apply(sentence)
                if not sentence or not self._takes(sentence):
                    continue
                left_out = self.policy.fault(sentence)
                if changes is not None:
                    found = {"left out for digits": 0} if left_out else changed
                    changes.add(f"{self.path}, line {number}", found)
                if not left_out:
                    yield number, sentence
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}: is not UTF-8 after line {number} ({error.reason}); convert it, or leave it out"
            ) from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{self.path}: cannot be decompressed after line {number} ({error})"
            ) from error

    def _lines(self):
        if self.is_manifest:
            yield from (row["wrd"] for _, row in read_csv(self.path, ["wrd"])[1])
            return
        opener = gzip.open if self.path.endswith(".gz") else open
        # a byte order mark, which editors on Windows write, is no text
        with opener(self.path, "rt", encoding="utf-8-sig") as file:
            yield from file

    def _takes(self, sentence):
        # by the sentence itself, so that the same one never stands on both sides
        held_out = zlib.crc32(sentence.encode()) < self.held_out * 2**32
        return self.part == "all" or held_out == (self.part == "held_out")

    def fingerprint(self):
        """What tells the file from another, without reading all of it."""
        size, ends = os.path.getsize(self.path), b""
        with open(self.path, "rb") as file:
            for start in (0, max(0, size - 2**20)):
                file.seek(start)
                ends += file.read(2**20)
        found = [Path(self.path).name, size, zlib.crc32(ends), self.part, self.held_out]
        # runs from before the policies go on
        return found if self.policy == TextPolicy() else [*found, self.policy.options()]


def find_texts(hparams, training=True):
    """The texts that the options name: files, transcripts of a corpus, or both.

    Arguments
    ---------
    hparams : dict
    training : bool
        Whether text to train and validate on is wanted, or only to test.

    Returns
    -------
    (list of Text, list of Text, dict of str: list of Text)
        To train on and to validate with (empty where not wanted), and to test with, by name. Where no text
        is named for validation, a part of the training text is held out; where none is for a test, that is
        validation's.

    Raises
    ------
    SystemExit
        With one message, if no text is named, or one is missing.
    """
    policy = TextPolicy.of(hparams)
    by_option = {
        key: _given_texts(hparams, key, policy)
        for key in ("text_files", "valid_text", "test_texts")
    }
    train, valid = by_option["text_files"], by_option["valid_text"]
    tests = {}
    for text in by_option["test_texts"]:
        name = Path(text.path).name.split(".")[0]
        while name in {"valid", *tests}:
            name = f"test-{name}"
        tests[name] = [text]
    by_manifests = hparams["train_manifest"] or hparams["test_manifests"]
    if hparams["data_folder"] or by_manifests:
        spoken = training and hparams["train_manifest" if by_manifests else "train_splits"]
        manifests = prepare_manifests(hparams, bool(spoken))
        if spoken:
            train.append(Text(manifests.train, is_manifest=True, policy=policy))
            valid = valid or [Text(manifests.valid, is_manifest=True, policy=policy)]
        tests |= {
            name: [Text(path, is_manifest=True, policy=policy)]
            for name, path in manifests.tests.items()
        }
    if not training:
        train = []
        if not tests and not valid:
            raise SystemExit("there is nothing to test: give --test_texts")
    elif not train:
        raise SystemExit(
            "give --text_files (a sentence a line, several as '[a.txt, b.txt.gz]'), or --data_folder or "
            "--train_manifest for the transcripts of speech"
        )
    elif not valid:
        train, valid = _hold_out(train, hparams["valid_fraction"])
    return train, valid, tests or {"valid": valid}


def _given_texts(hparams, option, policy):
    """The files that an option names, each with a sentence at least."""
    paths = hparams[option] or []
    texts = [Text(path, policy=policy) for path in ([paths] if isinstance(paths, str) else paths)]
    for text in texts:
        try:
            if next(text.sentences(), None) is None:
                raise ValueError(f"{text.path}: has no sentence")
        except (OSError, ValueError) as error:
            raise SystemExit(f"--{option}: {error}") from error
    return texts


def _hold_out(train, fraction):
    """Training texts without a part of their sentences, and that part."""
    if not 0 < fraction < 1:
        raise SystemExit(
            f"--valid_fraction must lie between 0 and 1, or give --valid_text; got {fraction}"
        )
    parts = ("rest", "held_out")
    return ([text._replace(part=part, held_out=fraction) for text in train] for part in parts)


class TextSample:
    """Some sentences of training texts, drawn at random, that a tokenizer is learnt from.

    Arguments
    ---------
    texts : list of Text
    size : int
        Most sentences to draw.
    """

    def __init__(self, texts, size):
        self.texts, self.size = texts, size

    def identity(self):
        """What tells the texts from others without reading all of them, and the size of the sample."""
        return {"texts": [text.fingerprint() for text in self.texts], "tokenizer_lines": self.size}

    def sentences(self):
        """A list of sentences; each of the texts' has the same chance, and the draw is the same at every start.

        Raises
        ------
        ValueError
            If there is no sentence.
        """
        chance, sample = random.Random(0), []
        pairs = (pair for text in self.texts for pair in text.sentences())
        for index, (_, sentence) in enumerate(pairs):
            if len(sample) < self.size:
                sample.append(sentence)
            elif (place := chance.randrange(index + 1)) < len(sample):
                sample[place] = sentence
        if not sample:
            raise ValueError(f"{name_texts(self.texts)}: there is no sentence to train on")
        return sample


def name_texts(texts):
    """The files of texts, for an error."""
    return ", ".join(text.path for text in texts)
