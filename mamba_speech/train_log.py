"""Reading the figures that a training writes down after each epoch, without any library that draws or computes."""

from pathlib import Path


def read_train_log(train_log):
    """Read the epochs' lines of a log that SpeechBrain's FileTrainLogger wrote.

    Arguments
    ---------
    train_log : str or Path

    Returns
    -------
    epochs : list of dict
        One an epoch, in order, from names such as `train loss` and `valid WER` to numbers. Of an
        epoch that was run twice, the first time being cut short, the last line counts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If no epoch stands in it.
    """
    try:
        lines = Path(train_log).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{train_log}: no such file; a run writes it as it trains"
        ) from error
    found = [read_epoch(line) for line in lines if line.startswith("epoch: ")]
    epochs = {figures["epoch"]: figures for figures in found}
    if not epochs:
        raise ValueError(f"{train_log}: tells of no finished epoch; train at least one")
    return [epochs[number] for number in sorted(epochs)]


def read_epoch(line):
    """The figures in one epoch's line, by name.

    Example
    -------
    >>> read_epoch("epoch: 1, lr: 1.0e-03 - train loss: 2.5 - valid loss: 2.0, valid WER: 90.5")
    {'epoch': 1.0, 'lr': 0.001, 'train loss': 2.5, 'valid loss': 2.0, 'valid WER': 90.5}
    """
    items = (item.split(": ") for part in line.split(" - ") for item in part.split(", "))
    return {name: float(value) for name, value in items}
