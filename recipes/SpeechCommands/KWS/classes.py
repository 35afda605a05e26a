"""The keyword recipe's classes: how many the data have, and which a trained model knows."""

from pathlib import Path

from data_prep.keywords.words import DIGITS, choose_labels, find_root
from data_prep.speechcommands_prepare import percentages_of
from mamba_speech.files import read_json, write_json


def complete_options(values, given):
    """Derive ``n_classes``, where it is empty, from the trained model or else from the data.

    Arguments
    ---------
    values : dict
        Plain values of all options.
    given : iterable of str
        Names of the given ones.

    Returns
    -------
    dict
        The number of classes, or nothing.

    Raises
    ------
    SystemExit
        If there are no data, or they do not fit the options.
    """
    del given
    if values.get("n_classes") is not None:
        return {}
    trained = trained_labels(values["labels_file"])
    if trained:
        return {"n_classes": len(trained)}
    if not values.get("data_folder"):
        raise SystemExit("give --data_folder: Speech Commands, or a folder of word folders")
    if values.get("test_speaker"):
        return {"n_classes": len(DIGITS)}
    if not values.get("words"):
        raise SystemExit("give --words or --n_classes: the words to spot, or the number of classes")
    try:
        root = find_root(values["data_folder"], str(values["version"]).removeprefix("v"))
        labels = choose_labels(
            root,
            values["version"],
            listed_words(values["words"]),
            percentages_of(values["unknown_percentage"], values["silence_percentage"]),
            values["other_speech_percentage"],
        )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return {"n_classes": len(labels)}


def listed_words(words):
    """The words to spot: a list of one text may hold several, with commas between."""
    return words[0] if isinstance(words, list) and len(words) == 1 else words


def trained_labels(labels_file):
    """The classes of the model whose checkpoints stand beside the file; empty if there is none."""
    file = Path(labels_file)
    if not file.is_file() or not any(file.parent.glob("CKPT*")):
        return []
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"{file}: cannot be read ({error}); give another --output_folder"
        ) from error


def refuse_other_labels(labels, labels_file):
    """Refuse classes other than the trained model's.

    Raises
    ------
    ValueError
        If a model was trained there on other classes.
    """
    before = trained_labels(labels_file)
    if before and before != labels:
        raise ValueError(
            f"{labels_file}: a model was trained here on other classes ({', '.join(before)}): give another "
            "--output_folder"
        )


def keep_labels(labels, labels_file):
    """Put the classes beside the checkpoints, where a trained model's user finds them."""
    if not trained_labels(labels_file):
        Path(labels_file).parent.mkdir(parents=True, exist_ok=True)
        write_json(labels_file, labels)
