"""The tokenizer of a run: learnt from the run's text or taken from another model, and fixed once a model is trained.

The run keeps the SentencePiece model and, beside it, a record of the text that it was learnt from. A start with the
same text and options finds its tokenizer there. A start with others replaces it while there is no checkpoint.
"""

from pathlib import Path
from typing import Protocol

from speechbrain.utils.distributed import run_on_main

from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.files import copy_file, read_json, write_json


class TrainingText(Protocol):
    """Text that a tokenizer can be learnt from."""

    def identity(self):
        """A dict of plain values that tells the text from any other."""

    def sentences(self):
        """A list of sentences to learn from, the same at every call."""


def prepare_tokenizer(hparams, text=None, find_given=None, spare_outputs=False):
    """Give a run its tokenizer: another model's, one learnt from text, or the one that the run has already.

    Arguments
    ---------
    hparams : dict
        With ``tokenizer_file``, the run's own, in its ``output_folder``; ``token_type`` and ``output_neurons``.
    text : TrainingText, optional
        Text that the run is about to train on. Without it the run's own tokenizer is loaded, and nothing is written.
    find_given : callable, optional
        Function without arguments that returns the path of a tokenizer to copy. By default one is learnt.
    spare_outputs : bool
        Whether the output layer may be wider than the vocabulary. CTC never reads spare outputs; a decoder would write
        them.

    Returns
    -------
    mamba_speech.asr.tokenizer.Tokenizer

    Raises
    ------
    SystemExit
        With one message, if the tokenizer does not fit the text or the output layer, or would change under a trained
        model.
    """
    model_file, outputs = Path(hparams["tokenizer_file"]), hparams["output_neurons"]
    try:
        if text is not None:
            _check_place(model_file, hparams["output_folder"])
            if find_given is not None:
                run_on_main(_take, args=(model_file, find_given))
            else:
                run_on_main(_learn, args=(model_file, text, hparams["token_type"], outputs))
        tokenizer = Tokenizer(model_file)
        size = len(tokenizer)
        if size > outputs or (size < outputs and not spare_outputs):
            raise ValueError(
                f"{model_file}: holds {size} tokens, but output_neurons is {outputs}: "
                f"set --output_neurons {size}, or give a tokenizer of that size"
            )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return tokenizer


def _check_place(model_file, output_folder):
    """Refuse to write over a tokenizer that is not the run's own."""
    if Path(output_folder).resolve() not in model_file.resolve().parents:
        raise ValueError(
            f"--tokenizer_file {model_file}: is where the run keeps its own tokenizer, within {output_folder}: "
            "name another model's by --pretrained_tokenizer_file or --pretrained_lm_tokenizer_path"
        )


def _take(model_file, find_given):
    """Copy a given tokenizer into the run, unless the run's own has the same tokens."""
    given = find_given()
    tokenizer = Tokenizer(given)
    if model_file.is_file():
        difference = tokenizer.difference(Tokenizer(model_file))
        if not difference:
            return
        _check_untrained(
            model_file,
            f"{given}: has other tokens than {model_file}, which a model was trained with ({difference}): give another "
            "--output_folder, or a tokenizer with this run's tokens",
        )
    _forget(model_file)
    copy_file(given, model_file)


def _learn(model_file, text, kind, size):
    """Learn a tokenizer, unless the record says that the run's own was learnt in the same way."""
    # the size of a set of characters follows from the text
    record = {"token_type": kind, "size": None if kind == "char" else size} | text.identity()
    record_file = model_file.with_suffix(".json")
    if model_file.is_file():
        if record_file.is_file() and read_json(record_file) == record:
            return
        _check_untrained(
            model_file,
            f"{model_file}: was not learnt from this text with this token_type and output_neurons, and a model was "
            "trained with it: bring back the lists, the recordings (skipped_*.csv names the missing ones) and the "
            "options as they were (--text_apostrophes keep for runs without such options), or give another "
            "--output_folder",
        )
    sentences = text.sentences()
    _forget(model_file)
    Tokenizer.train(sentences, model_file, kind, size)
    write_json(record_file, record)


def _forget(model_file):
    """Remove the record first, so that a killed start never leaves it beside another tokenizer."""
    model_file.parent.mkdir(parents=True, exist_ok=True)
    model_file.with_suffix(".json").unlink(missing_ok=True)


def _check_untrained(model_file, message):
    if any(model_file.parent.glob("CKPT*")):
        raise ValueError(message)
