"""Trained runs for the fault tests: made once, copied for each case, started again in process, and their refusals."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import keywords, recognition
from tests.support.keywords import TASK

KINDS = ("CTC", "KWS")


@dataclass
class TrainedRun:
    """A run's folder, and the options that it was trained with.

    Arguments
    ---------
    kind : str
        `CTC` or `KWS`.
    folder : Path
        Output folder.
    options : dict
        Options of the command line by name, without the output folder.
    """

    kind: str
    folder: Path
    options: dict

    def copy(self, folder):
        """A copy of the run in a new folder."""
        shutil.copytree(self.folder, folder)
        return TrainedRun(self.kind, Path(folder), dict(self.options))

    def start(self, *flags, **options):
        """Start the script in this process, with more or other options; gives the output folder."""
        options = {"output_folder": self.folder} | self.options | options
        if self.kind == "KWS":
            keywords.train_here("debug", *flags, **options)
        else:
            recognition.call_script("CTC", recognition.DEBUG["CTC"], *flags, **options)
        return Path(options["output_folder"])

    @property
    def checkpoints(self):
        """Folders of its end-of-epoch checkpoints, oldest first."""
        return recognition.epoch_checkpoints(self.folder)

    @property
    def recording(self):
        """A recording of its corpus."""
        return min(
            path
            for suffix in ("wav", "flac")
            for path in Path(self.options["data_folder"]).rglob(f"*.{suffix}")
        )


def run_of(kind, corpus):
    """Options of a debug run that takes a second or two, and averages two checkpoints."""
    options = {"data_folder": corpus, "number_of_epochs": 2, "avg_checkpoints": 2, "seed": 1}
    if kind == "KWS":
        return TASK | options
    few = {"total_steps": 20, "max_batch_length_train": 15, "num_workers": 0}
    return recognition.SPLITS | few | options


def refusal(call, *arguments, **options):
    """The sentence with which a call of a script ends; whatever else it raises, or that it goes on, is a failure.

    Example
    -------
    >>> def refuse():
    ...     raise SystemExit("--seed abc: write a whole number")
    >>> refusal(refuse)
    '--seed abc: write a whole number'
    """
    with pytest.raises(SystemExit) as ended:
        call(*arguments, **options)
    sentence = str(ended.value.code)
    assert "Traceback" not in sentence and len(sentence.split()) > 3, sentence
    return sentence
