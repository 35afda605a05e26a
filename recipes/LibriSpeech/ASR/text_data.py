"""What the language model's recipe reads: sentences of text files and transcripts, and their tokens.

Text is read as a stream and written once as numbers that are mapped into memory, so that a text of
gigabytes, compressed or not, takes its size in tokens on disk and little memory.
"""

import csv
import gzip
import hashlib
import json
import os
import random
import shutil
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from speech_data import prepare_manifests
from speechbrain.utils.distributed import run_on_main

from data_prep.verify import normalise_text
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.files import write_json


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

    def sentences(self):
        """Yield ``(line number, sentence)`` with one space between words; empty lines are passed over.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not UTF-8, or its compression is damaged.
        """
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such file; a text has a sentence a line")
        number = 0
        try:
            for number, sentence in enumerate(self._lines(), start=1):
                sentence = normalise_text(sentence)
                if sentence and self._takes(sentence):
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
        opener = gzip.open if self.path.endswith(".gz") else open
        # a byte order mark, which editors on Windows write, is no text
        with opener(
            self.path, "rt", encoding="utf-8-sig", newline="" if self.is_manifest else None
        ) as file:
            yield from (row["wrd"] for row in csv.DictReader(file)) if self.is_manifest else file

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
        return [Path(self.path).name, size, zlib.crc32(ends), self.part, self.held_out]


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
    by_option = {
        key: _given_texts(hparams, key) for key in ("text_files", "valid_text", "test_texts")
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
        spoken, dev, tested = prepare_manifests(hparams, bool(spoken))
        if spoken:
            train.append(Text(spoken, is_manifest=True))
            valid = valid or [Text(dev, is_manifest=True)]
        tests |= {name: [Text(path, is_manifest=True)] for name, path in tested.items()}
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


def _given_texts(hparams, option):
    """The files that an option names, each with a sentence at least."""
    paths = hparams[option] or []
    texts = [Text(path) for path in ([paths] if isinstance(paths, str) else paths)]
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


def prepare_tokenizer(hparams, train):
    """The tokenizer: ``pretrained_tokenizer_file``, one learnt from the text, or the one that this run has already.

    Arguments
    ---------
    hparams : dict
    train : list of Text
        Empty to take what the run has.

    Returns
    -------
    mamba_speech.asr.tokenizer.Tokenizer

    Raises
    ------
    SystemExit
        With one message, if the tokenizer does not fit the text or the vocabulary, or a trained run's would change.
    """
    model_file = Path(hparams["tokenizer_file"])
    try:
        if train:
            run_on_main(
                _take_tokenizer if hparams["pretrained_tokenizer_file"] else _learn_tokenizer,
                args=(hparams, train),
            )
        tokenizer = _read_tokenizer(model_file)
        if len(tokenizer) != hparams["output_neurons"]:
            raise ValueError(
                f"{model_file}: holds {len(tokenizer)} tokens, but output_neurons is "
                f"{hparams['output_neurons']}: set --output_neurons {len(tokenizer)}"
            )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return tokenizer


def _read_tokenizer(path):
    tokenizer = Tokenizer(path)
    if any(tokenizer.decode([token]) for token in tokenizer.control):
        raise ValueError(
            f"{path}: its tokens 1 and 2 are text, where the start and end of a sentence belong; learn it with "
            "bos_id 1 and eos_id 2"
        )
    return tokenizer


def _take_tokenizer(hparams, train):
    """Put a copy of ``pretrained_tokenizer_file`` into the run."""
    del train
    model_file = Path(hparams["tokenizer_file"])
    given = _read_tokenizer(hparams["pretrained_tokenizer_file"])
    if model_file.is_file() and _read_tokenizer(model_file).labels() == given.labels():
        return
    _check_untrained(model_file)
    model_file.parent.mkdir(parents=True, exist_ok=True)
    partial = model_file.with_suffix(".partial")
    shutil.copyfile(hparams["pretrained_tokenizer_file"], partial)
    # first, so that a killed start never leaves another tokenizer's record
    model_file.with_suffix(".json").unlink(missing_ok=True)
    os.replace(partial, model_file)


def _learn_tokenizer(hparams, train):
    """Learn a tokenizer from a sample of the sentences, the same at every start."""
    model_file = Path(hparams["tokenizer_file"])
    record_file = model_file.with_suffix(".json")
    record = {key: hparams[key] for key in ("token_type", "output_neurons", "tokenizer_lines")}
    record["texts"] = [text.fingerprint() for text in train]
    if model_file.is_file():
        if record_file.is_file() and json.loads(record_file.read_text(encoding="utf-8")) == record:
            return
        _check_untrained(model_file)
    chance, sample = random.Random(0), []
    for index, (_, sentence) in enumerate(pair for text in train for pair in text.sentences()):
        if len(sample) < hparams["tokenizer_lines"]:
            sample.append(sentence)
        elif (place := chance.randrange(index + 1)) < len(sample):
            sample[place] = sentence
    if not sample:
        raise ValueError(f"{_names(train)}: there is no sentence to train on")
    record_file.unlink(missing_ok=True)
    Tokenizer.train(sample, model_file, hparams["token_type"], hparams["output_neurons"])
    write_json(record_file, record)


def _check_untrained(model_file):
    if any(model_file.parent.glob("CKPT*")):
        raise ValueError(
            f"{model_file} was made from another pretrained_tokenizer_file, text, token_type or output_neurons, and a "
            "model was trained on it: give another --output_folder"
        )


def _names(texts):
    return ", ".join(text.path for text in texts)


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
        record = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
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
    record_file = Path(f"{stem}.json")
    if record_file.is_file():
        record = json.loads(record_file.read_text(encoding="utf-8"))
        # earlier versions took no hash
        if record["source"] == source and "sha256" in record:
            return
        record_file.unlink()
    stem.parent.mkdir(parents=True, exist_ok=True)
    counts = {"words": 0, "left_out": 0}
    dtype = "<u2" if len(tokenizer) <= 2**16 else "<i4"
    end, digest = 0, hashlib.sha256()
    with open(f"{stem}.tokens", "wb") as tokens_file, open(f"{stem}.ends", "wb") as ends_file:
        for sentence, tokens in _encoded(tokenizer, texts):
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
            f"{_names(texts)}: there is no sentence in it"
            + (f" of at most {longest} tokens (longest_sentence)" if counts["left_out"] else "")
            + (
                ""
                if texts[0].part == "all"
                else ": set another --valid_fraction, or give --valid_text"
            )
        )
    # without its record the rest does not count, so that a killed run leaves nothing half done
    counts["sha256"] = digest.hexdigest()
    write_json(record_file, {"source": source, "dtype": dtype} | counts)


def _encoded(tokenizer, texts):
    """Yield ``(sentence, tokens)``; a character that the tokenizer lacks is an error."""
    known = {" "}
    for text in texts:
        for number, sentence in text.sentences():
            for character in set(sentence) - known:
                if not tokenizer.decode(tokenizer.encode(character)):
                    raise ValueError(
                        f"{text.path}: line {number} has the character {character!r}, which the tokenizer does not: "
                        "write the text as the tokenizer's was written (capitals, punctuation), or train without "
                        "--pretrained_tokenizer_file on text that has it"
                    )
                known.add(character)
            yield sentence, tokenizer.encode(sentence)
