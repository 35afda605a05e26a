"""Where a run's figures go: a text file always, TensorBoard and Weights & Biases where asked for."""

import importlib.util
import math

from speechbrain.utils.train_logger import FileTrainLogger, TensorboardLogger, WandBLogger

from mamba_speech.files import naming_file


class ReadableTrainLogger(FileTrainLogger):
    """SpeechBrain's text file of figures, with all but learning rates written without an exponent."""

    def log_stats(self, *arguments, **options):
        """Append a line; see SpeechBrain's method. An error names the file."""
        with naming_file(self.save_file):
            super().log_stats(*arguments, **options)

    def _item_to_string(self, key, value, dataset=None):
        if isinstance(value, float):
            value = f"{value:.2e}" if key == "lr" else readable(value, 4 if key == "loss" else 2)
        return super()._item_to_string(key, value, dataset)


def readable(value, decimals=2):
    """A figure as people write it: without an exponent, and with four digits or more.

    Arguments
    ---------
    value : float
    decimals : int
        How many at least; at most there are six.

    Returns
    -------
    str

    Example
    -------
    >>> [readable(value) for value in (100.0, -21.5687, 4.17412, 0.0063334, 4935512.3)]
    ['100.00', '-21.57', '4.174', '0.006333', '4935512.30']
    """
    if value and math.isfinite(value):
        decimals = min(6, max(decimals, 3 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def check_installed(package):
    """Refuse a logger whose package is not installed.

    Arguments
    ---------
    package : str
        ``tensorboard`` or ``wandb``.

    Raises
    ------
    SystemExit
        With one sentence.
    """
    found = importlib.util.find_spec(package)
    # a folder of that name, such as wandb leaves, is no package
    if found is None or found.origin is None:
        raise SystemExit(
            f"--use_{package}: {package} is not installed; pip install {package} first"
        )


def _start_wandb(options):
    import wandb

    try:
        return wandb.init(**options)
    # the package has errors of many kinds, for a missing login as for a wrong option
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SystemExit(
            f"--use_wandb: Weights & Biases does not start ({reason}); log in by wandb login, or set WANDB_MODE=offline"
        ) from error


class TrainLoggers:
    """Several of SpeechBrain's train loggers behind one ``log_stats``.

    Arguments
    ---------
    train_log : str
        Text file, one line an epoch.
    tensorboard_folder : str, optional
        Folder for TensorBoard's events.
    wandb : dict, optional
        Options of ``wandb.init``.

    Raises
    ------
    SystemExit
        If a logger is asked for whose package is not installed, or does not start.
    """

    def __init__(self, train_log, tensorboard_folder=None, wandb=None):
        self.loggers = [ReadableTrainLogger(train_log)]
        if tensorboard_folder is not None:
            check_installed("tensorboard")
            self.loggers.append(TensorboardLogger(tensorboard_folder))
        if wandb is not None:
            check_installed("wandb")
            self.loggers.append(WandBLogger(_start_wandb, wandb))

    @classmethod
    def from_hparams(cls, hparams):
        """Those that a recipe's options ask for.

        Arguments
        ---------
        hparams : dict
            With ``train_log``, ``output_folder``, ``use_tensorboard``, ``use_wandb`` and ``wandb_options``.
        """
        tensorboard = f"{hparams['output_folder']}/tensorboard"
        return cls(
            hparams["train_log"],
            tensorboard_folder=tensorboard if hparams["use_tensorboard"] else None,
            wandb=hparams["wandb_options"] if hparams["use_wandb"] else None,
        )

    def log_stats(self, stats_meta, train_stats=None, valid_stats=None, test_stats=None):
        """Hand the figures to every logger; numbers only to those that draw."""
        numbers = {
            key: value for key, value in stats_meta.items() if isinstance(value, (int, float))
        }
        for index, logger in enumerate(self.loggers):
            logger.log_stats(numbers if index else stats_meta, train_stats, valid_stats, test_stats)
