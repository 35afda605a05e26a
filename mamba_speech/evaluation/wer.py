"""The files of a recognition test: word errors utterance by utterance, and the alignments behind them."""

from typing import NamedTuple

from mamba_speech.evaluation.item_files import read_items
from mamba_speech.files import whole_file, write_csv

COLUMNS = ("id", "words", "errors")


class UtteranceErrors(NamedTuple):
    """Words of an utterance's reference, and the errors of its recognition (also insertions)."""

    words: int
    errors: int


def write_errors(path, scores):
    """Write the errors of every utterance of a test set as a CSV file with the columns ``id,words,errors``.

    Arguments
    ---------
    path : str or Path
    scores : list of dict
        ``scores`` of :class:`speechbrain.utils.metric_stats.ErrorRateStats`.
    """
    rows = ((score["key"], score["num_ref_tokens"], score["num_edits"]) for score in scores)
    write_csv(path, COLUMNS, rows)


def read_errors(path):
    """Read what :func:`write_errors` has written.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    dict of str: UtteranceErrors

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`mamba_speech.evaluation.item_files.read_items`.
    """
    return read_items(path, COLUMNS, _parse, "utterance")


def _parse(row):
    return UtteranceErrors(int(row["words"]), int(row["errors"]))


def write_alignments(path, words, characters):
    """Write the error rates of a test set, and each utterance's words beside its reference.

    SpeechBrain's format comes first. The last two lines are ``WER: 12.34%`` and ``CER: 5.67%``, which published
    scripts search for.

    Arguments
    ---------
    path : str or Path
    words, characters : speechbrain.utils.metric_stats.ErrorRateStats
        Errors in words, and in characters.
    """
    with whole_file(path) as file:
        words.write_stats(file)
        file.write("=" * 80 + "\n")
        for name, statistics in (("WER", words), ("CER", characters)):
            file.write(f"{name}: {statistics.summarize('error_rate'):.2f}%\n")
