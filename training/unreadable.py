"""Recordings that fail to be read while a run trains, validates or tests: skipped, counted, and listed by name.

A batch keeps its other items. What a batch of training lacks then follows from the data alone, so a resumed run, and
a run with other workers, makes the same batches as long as the same recordings are bad.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import if_main_process
from torch.utils.data import Dataset, default_collate

from mamba_speech.audio import AudioError, AudioWarning, collected_warnings, load_audio
from mamba_speech.files import error_text, read_csv, write_csv

logger = logging.getLogger(__name__)

FILE = "unreadable.csv"
COLUMNS = ("id", "path", "error")
# of a YAML from before there was the option
MOST = 100
# what reading raises; an error of the program itself is none of these
_READING = (AudioError, OSError, MemoryError, soundfile.SoundFileError)
# torch's allocator has no error of its own on a CPU
_ALLOCATION = ("can't allocate memory", "not enough memory", "out of memory")
# rate at which a listed recording is tried again
_RATE = 16000


class Failure(NamedTuple):
    """An item that could not be read: its name, the file at fault as far as it is known, and the error."""

    id: str
    path: str
    error: str


class LoadedBatch(NamedTuple):
    """What a loader gives: a batch, None where nothing of it could be read, the items that failed, and warnings."""

    batch: object
    failures: list
    warnings: list = ()


class ReadableItems(Dataset):
    """A data set whose items may fail to be read; to be collated by :class:`ReadableBatch`.

    Arguments
    ---------
    items : torch.utils.data.Dataset
    training : bool
        Whether a batch is filled up with the items that follow in the data set. A batch of two or more keeps two, since
        batch normalisation needs them; a batch of one keeps one. So no step of a training is without data, and all
        processes of a distributed run make the same number of steps. A test counts no item twice.
    most : int
        Failures after which a batch is not filled up further.

    Example
    -------
    >>> class Odd(Dataset):
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, index):
    ...         if index % 2 == 0:
    ...             raise AudioError(f"{index}.wav: no such file")
    ...         return index
    >>> ReadableBatch(list)(ReadableItems(Odd(), True, 9).__getitems__([2]))
    LoadedBatch(batch=[3], failures=[Failure(id='2', path='2.wav', error='2.wav: no such file')], warnings=[])
    """

    def __init__(self, items, training, most):
        self.items, self.training, self.most = items, training, most

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        """The item, or its Failure."""
        try:
            return self.items[index]
        except _READING as error:
            return _failure(self.items, index, error)
        except RuntimeError as error:
            if not any(part in str(error) for part in _ALLOCATION):
                raise
            return _failure(self.items, index, error)

    def __getitems__(self, indices):
        """Items of a batch, the Failures among them, and at the end the warnings of their recordings."""
        with collected_warnings() as odd:
            found = self._read(indices)
        return [*found, *odd]

    def _read(self, indices):
        found = [self[index] for index in indices]
        if not self.training or not indices:
            return found
        wanted, size = min(2, len(indices)), len(self.items)
        failed = sum(isinstance(one, Failure) for one in found)
        if len(found) - failed >= wanted:
            return found
        taken, index = set(indices), indices[-1]
        for _ in range(size):
            index = (index + 1) % size
            if index in taken:
                continue
            found.append(self[index])
            failed += isinstance(found[-1], Failure)
            if len(found) - failed >= wanted or failed > self.most:
                break
        return found


class ReadableBatch:
    """Collates items that a :class:`ReadableItems` gives into a LoadedBatch.

    Arguments
    ---------
    collate : callable
        Function from a list of items to a batch.
    """

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, found):
        """A LoadedBatch of items, Failures and warnings."""
        items = [one for one in found if not isinstance(one, Failure | AudioWarning)]
        failures = [one for one in found if isinstance(one, Failure)]
        odd = [one for one in found if isinstance(one, AudioWarning)]
        return LoadedBatch(self.collate(items) if items else None, failures, odd)


def readable(items, options, training, most):
    """A data set and the options of its loader, such that recordings may fail to be read.

    Arguments
    ---------
    items : torch.utils.data.Dataset
    options : dict
        Options of its loader.
    training : bool
    most : int
        Both as in :class:`ReadableItems`.

    Returns
    -------
    (ReadableItems, dict)
    """
    usual = PaddedBatch if isinstance(items, DynamicItemDataset) else default_collate
    collate = ReadableBatch(options.get("collate_fn") or usual)
    return ReadableItems(items, training, most), options | {"collate_fn": collate}


class UnreadableList:
    """The recordings of a run that failed to be read, as a CSV file in its folder.

    A recording that an earlier start listed stays there as long as it still fails.

    Arguments
    ---------
    folder : str or Path
        Output folder of the run.
    most : int
        Different recordings that may fail.
    """

    def __init__(self, folder, most):
        self.file, self.most = Path(folder) / FILE, most
        self._found = {_key(one): one for one in _earlier(self.file) if _still_fails(one)}

    def __len__(self):
        return len(self._found)

    def note(self, failures):
        """Add failures; each recording is logged once, and the file is written whole by the main process.

        Raises
        ------
        SystemExit
            If more recordings have failed than may; the sentence names the list.
        """
        new = {}
        for one in failures:
            if _key(one) not in self._found:
                new.setdefault(_key(one), one)
        if not new:
            return
        self._found |= new
        if if_main_process():
            for one in new.values():
                logger.warning("%s; left out, and listed in %s", one.error, self.file)
            rows = ([" ".join(cell.split()) for cell in one] for one in self._found.values())
            write_csv(self.file, COLUMNS, rows)
        if len(self._found) > self.most:
            self.stop()

    def gather(self):
        """Let the main process of a distributed run list what the others could not read."""
        if not torch.distributed.is_initialized():
            return
        every = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(every, list(self._found.values()))
        for found in every:
            self.note(found)

    def stop(self, what="recordings"):
        """End the run with one sentence that names the list and the last error."""
        last = list(self._found.values())[-1].error if self._found else "the data are empty"
        raise SystemExit(
            f"{self.file}: {len(self._found)} {what} could not be read, more than --max_unreadable {self.most} allows "
            f"or all there are; the last: {last}; mend them, or set the option higher"
        )


def _failure(items, index, error):
    sentence = error_text(error) or type(error).__name__
    name, path = _place(items, index)
    if path is None or not sentence.startswith(str(path)):
        named = getattr(error, "filename", None) or sentence.partition(": ")[0]
        # noise or a room that was to be mixed in has failed, and not the item's own recording
        path = named if ": " in sentence or path is None else path
    if str(path) not in sentence:
        sentence = f"{path}: {sentence}"
    return Failure(str(name), str(path), sentence)


def _place(items, index):
    """The name of an item and its recording, as far as the data set tells."""
    while not hasattr(items, "data_ids"):
        below = getattr(items, "items", None) or getattr(items, "mixtures", None)
        if below is None:
            return index, None
        items = below
    name = items.data_ids[index]
    return name, items.data[name].get("wav")


def _key(failure):
    return failure.path or failure.id


def _earlier(file):
    try:
        return [Failure(*row.values()) for _, row in read_csv(file, COLUMNS)[1]]
    except (OSError, TypeError, ValueError):
        # a first start, or a list that was damaged since
        return []


def _still_fails(failure):
    try:
        load_audio(failure.path, _RATE)
    except AudioError:
        return True
    return False
