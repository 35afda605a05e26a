"""Tokens of text, characters or SentencePiece's subwords: learn them, encode text as tokens, decode tokens to text."""

import os
import tempfile
from itertools import zip_longest
from pathlib import Path

import sentencepiece

TYPES = ("char", "unigram", "bpe")


class Tokenizer:
    """A SentencePiece model; token 0 serves as CTC's blank, 1 and 2 as start and end of a sentence.

    Arguments
    ---------
    model_file : str or pathlib.Path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no SentencePiece model, or one of the special tokens is text.
    """

    blank = 0
    # start and end of a sentence: published vocabularies count them, and CTC never emits them
    control = (1, 2)

    def __init__(self, model_file):
        if not Path(model_file).is_file():
            raise FileNotFoundError(
                f"{model_file}: no such file; a run writes its tokenizer there when it starts"
            )
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        except (OSError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{model_file}: is no SentencePiece model: damaged, or another kind of file"
            ) from error
        is_control, is_unknown = self._processor.is_control, self._processor.is_unknown
        text = [str(token) for token in self.control if not is_control(token)]
        if not (is_control(self.blank) or is_unknown(self.blank)):
            text.insert(0, str(self.blank))
        if text:
            raise ValueError(
                f"{model_file}: its tokens {' and '.join(text)} are text, where the blank (0), the start and the end "
                "of a sentence (1, 2) belong; learn it with unk_id 0, bos_id 1 and eos_id 2"
            )

    @classmethod
    def train(cls, texts, model_file, kind="char", size=None):
        """Learn a tokenizer from transcripts, write it to ``model_file`` and return it.

        Text is taken as it is, without Unicode normalisation.

        Arguments
        ---------
        texts : iterable of str
        model_file : str or pathlib.Path
        kind : str
            ``char``, ``unigram`` or ``bpe``.
        size : int
            Number of tokens; with ``char`` the most there may be, the three special ones included.

        Raises
        ------
        ValueError
            If the kind is unknown, there is no text, or the size does not fit the text.
        """
        if kind not in TYPES:
            raise ValueError(f"token_type must be one of {', '.join(TYPES)}; got {kind!r}")
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise ValueError("there is no transcript to learn a tokenizer from")
        # SentencePiece marks the start of every text as the start of a word, spaces or none
        characters = {"\u2581"} | set("".join(texts).replace(" ", "\u2581"))
        least = len(characters) + 3
        if size < least:
            raise ValueError(
                f"output_neurons is {size}, but the training transcripts hold {len(characters)} "
                f"different characters and need at least {least} tokens (blank, start and end "
                f"included): set --output_neurons {least} or more"
            )
        model_file = Path(model_file)
        model_file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=model_file.parent) as folder:
            learnt = Path(folder) / "tokenizer.model"
            try:
                _train_sentencepiece(texts, learnt, kind, least if kind == "char" else size)
            except RuntimeError as error:
                # what follows the place in SentencePiece's source that found the fault
                reason = str(error).rpartition("] ")[2].strip()
                raise ValueError(
                    f"{size} {kind} tokens cannot be learnt from {len(texts)} transcripts: set another "
                    f"--output_neurons (SentencePiece says: {reason})"
                ) from error
            tokenizer = cls(learnt)
            lost = [text for text in texts if not tokenizer.spells(text)]
            if lost:
                raise ValueError(
                    f"{len(lost)} of {len(texts)} transcripts cannot be spelt, such as {lost[0]!r}"
                )
            os.replace(learnt, model_file)
        return tokenizer

    def __len__(self):
        return self._processor.vocab_size()

    def labels(self):
        """The text of every token; ``\u2581`` marks the start of a word."""
        return [self._processor.id_to_piece(index) for index in range(len(self))]

    def difference(self, other):
        """The first token that another tokenizer has otherwise, in words; empty where all are the same.

        Tokens are compared one by one, so a tokenizer that was learnt again and has the same tokens is the same.

        Arguments
        ---------
        other : Tokenizer
        """
        pairs = list(zip_longest(self.labels(), other.labels()))
        different = [index for index, (own, its) in enumerate(pairs) if own != its]
        if not different:
            return ""
        own, its = ("none" if one is None else repr(one) for one in pairs[different[0]])
        return (
            f"{len(different)} of {len(pairs)} differ, first token {different[0]}: {own}, not {its}"
        )

    def encode(self, text):
        """Token numbers of a text; characters that training never saw are left out."""
        return [index for index in self._processor.encode(text) if index != self.blank]

    def lacking(self, text):
        """The characters of a text that the tokens cannot write, in order; bytes write every character.

        White space is none of them. A tokenizer that brings its own normalisation gives the characters after it.
        """
        pieces = zip(
            self._processor.encode(text), self._processor.encode(text, out_type=str), strict=True
        )
        unknown = self._processor.unk_id()
        # an unknown piece is written as it stands in the text
        return [
            one
            for index, piece in pieces
            if index == unknown
            for one in piece
            if one.strip("\u2581 ")
        ]

    def spells(self, text):
        """Whether the tokens spell the text, every character of it."""
        return self.decode(self.encode(text)) == " ".join(text.split())

    def decode(self, indices):
        """Text of token numbers."""
        return self._processor.decode([int(index) for index in indices])


def _train_sentencepiece(texts, model_file, kind, size):
    """Write a SentencePiece model with this project's special tokens, without Unicode normalisation."""
    corpus = model_file.with_name("text.txt")
    corpus.write_text("\n".join(texts) + "\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(model_file.with_suffix("")),
        model_type=kind,
        vocab_size=size,
        character_coverage=1.0,
        normalization_rule_name="identity",
        unk_id=Tokenizer.blank,
        bos_id=Tokenizer.control[0],
        eos_id=Tokenizer.control[1],
        pad_id=-1,
        max_sentence_length=65536,
        minloglevel=2,
    )
