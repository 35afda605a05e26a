"""Loading of data: which items make a batch, draws that do not depend on the loader's workers, how workers start.

Workers start by fork, forkserver or spawn, whichever is Python's default on the machine. The last two hand the
data set over pickled, so its callables are module-level functions, partials of such functions, or instances.
"""

import contextlib
import logging
import multiprocessing
import operator
import os
import random
import sys
import threading

import numpy
import torch
from speechbrain.core import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.utils.distributed import if_main_process
from torch.utils.data import Dataset

from mamba_speech.audio import resampling

# as SpeechBrain writes to the log and to the screen
LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
SCREEN_FORMAT = "%(name)s - %(message)s"
# imported once by a fork server, so that its workers start at once
PRELOADED = ("speechbrain", "mamba_speech.audio.reading", "training.loading")
# how often a worker looks whether its process lives
WATCH_SECONDS = 0.5
BATCH_SIZES = {
    Stage.TRAIN: "batch_size",
    Stage.VALID: "valid_batch_size",
    Stage.TEST: "test_batch_size",
}


def item_seed(seed, epoch, index):
    """A seed of 32 bits, since torch reads no more, from a run's seed, an epoch and an item's index.

    Example
    -------
    >>> item_seed(1, 2, 3) == item_seed(1, 2, 3) != item_seed(1, 3, 2)
    True
    """
    return int(numpy.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])


@contextlib.contextmanager
def seeded(seed):
    """Seed Python's, NumPy's and torch's CPU generators inside, and restore their states afterwards.

    Example
    -------
    >>> import torch
    >>> with seeded(1):
    ...     first = torch.rand(())
    >>> with seeded(1):
    ...     first == torch.rand(())
    tensor(True)
    """
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        numpy.random.seed(seed)
        # torch.manual_seed would seed the GPU's generators too
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])


class SeededItems(Dataset):
    """A training set whose items draw from generators that are seeded by run, epoch and index.

    An item is then the same whichever worker reads it, whatever was read before, and after a resume. Only rounding may
    differ: a worker computes on one thread, and a process without workers on all of its threads.

    Arguments
    ---------
    items : torch.utils.data.Dataset
        Its items may draw from the global generators of Python, NumPy and torch's CPU.
    seed : int
        Seed of the run.

    Example
    -------
    >>> import torch
    >>> class Noise(torch.utils.data.Dataset):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, index):
    ...         return float(torch.rand(()))
    >>> items = SeededItems(Noise(), seed=1)
    >>> items.set_epoch(1)
    >>> first = items[0]
    >>> items[1] != first == items[0]
    True
    >>> items.set_epoch(2)
    >>> items[0] != first
    True
    """

    def __init__(self, items, seed):
        self.items, self.seed = items, seed
        # shared, so that workers that outlive an epoch see the next one
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch):
        """Say which epoch begins, before its first item is read."""
        self._epoch.fill_(epoch)

    @property
    def unreadable(self):
        """What the data set could not read and has replaced, path to reason; see :class:`training.replaced`."""
        return getattr(self.items, "unreadable", {})

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        """Item ``index`` of the data set, with the draws of this epoch."""
        with seeded(item_seed(self.seed, int(self._epoch), index)):
            return self.items[index]


def end_with_parent():
    """Let a worker end within a second of its process' death; torch's own workers live up to eight seconds.

    However the worker was started, its process holds one end of a pipe. A process that was forked later holds a copy,
    so the death of the parent process counts too.
    """
    parent, started_by = multiprocessing.parent_process(), os.getppid()

    def watch():
        while parent.is_alive() and os.getppid() == started_by:
            parent.join(WATCH_SECONDS)
        # nothing is to be written any more, and the main thread may wait for ever
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end_with_parent").start()


class WorkerStart:
    """Prepares a worker of a loader, which ends with its process.

    One that was not forked shares the sample rates that were warned about. Workers of the main process write to the
    run's log.

    Arguments
    ---------
    log_file : str or Path
        Log of the run.
    """

    def __init__(self, log_file):
        self.log_file, self.resampled_rates = str(log_file), resampling.resampled_rates
        # a forked worker has the handlers of its process; only the main process has any
        self.logs = if_main_process() and multiprocessing.get_start_method() != "fork"

    def __call__(self, worker):
        """Prepare the process of worker number ``worker``."""
        del worker
        end_with_parent()
        resampling.resampled_rates = self.resampled_rates
        root = logging.getLogger()
        if root.handlers or not self.logs:
            return
        root.setLevel(logging.INFO)
        screen, file = (
            logging.StreamHandler(sys.stdout),
            logging.FileHandler(self.log_file, errors="backslashreplace"),
        )
        for handler, form in ((screen, SCREEN_FORMAT), (file, LOG_FORMAT)):
            handler.setFormatter(logging.Formatter(form))
            root.addHandler(handler)


def stop_workers(loader):
    """End the workers of a SpeechBrain loader whose last batch was not asked for.

    Otherwise they live until Python collects the loader, which then waits five seconds for each.

    Arguments
    ---------
    loader : torch.utils.data.DataLoader
    """
    iterator = getattr(loader, "_speechbrain_iterator", None)
    # a loader without workers has none to shut down
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


def worker_options(hparams):
    """The options of a loader's workers.

    Arguments
    ---------
    hparams : dict
        With ``num_workers`` and ``output_folder``.

    Returns
    -------
    dict
        ``num_workers`` and ``worker_init_fn`` of :class:`torch.utils.data.DataLoader`.
    """
    # ignored where another start method is used, or the server runs already
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    return {
        "num_workers": hparams["num_workers"],
        "worker_init_fn": WorkerStart(f"{hparams['output_folder']}/log.txt"),
    }


def loader_options(
    hparams, stage, batches=None, collate=PaddedBatch, shuffle=True, drop_last=False
):
    """The options of a data loader.

    Arguments
    ---------
    hparams : dict
        With what :func:`worker_options` reads. Without ``batches`` also with ``batch_size``, ``valid_batch_size`` or
        ``test_batch_size``.
    stage : speechbrain.Stage
        Use of the data set.
    batches : torch.utils.data.Sampler, optional
        Indices of each batch. By default batches have a fixed size.
    collate : callable, optional
        Function from a list of items to a batch.
    shuffle, drop_last : bool
        Whether training shuffles the items, and whether it leaves out a last batch that is not full. Both concern
        batches of a fixed size.

    Returns
    -------
    dict
        Arguments of :class:`torch.utils.data.DataLoader`.
    """
    options = worker_options(hparams) | {"collate_fn": collate}
    if batches is not None:
        return options | {"batch_sampler": batches}
    options["batch_size"] = hparams[BATCH_SIZES[stage]]
    if stage == Stage.TRAIN:
        options |= {"shuffle": shuffle, "drop_last": drop_last}
    return options


def dynamic_batches(hparams, stage, items):
    """Batches of utterances of like length, as many as fit into so many seconds.

    Arguments
    ---------
    hparams : dict
        With ``max_batch_length_train`` and ``max_batch_length_val`` in seconds, ``max_batch_ex``, ``num_bucket``,
        ``sorting`` and ``seed``.
    stage : speechbrain.Stage
        Training, or validation.
    items : speechbrain.dataio.dataset.DynamicItemDataset
        With ``duration`` in seconds.

    Returns
    -------
    DynamicBatchSampler
    """
    training = stage == Stage.TRAIN
    return DynamicBatchSampler(
        items,
        max_batch_length=hparams["max_batch_length_train" if training else "max_batch_length_val"],
        num_buckets=hparams["num_bucket"],
        length_func=operator.itemgetter("duration"),
        shuffle=training and hparams["sorting"] == "random",
        batch_ordering=hparams["sorting"] if training else "descending",
        max_batch_ex=hparams["max_batch_ex"],
        seed=hparams["seed"],
    )


def count_batches(items, options, things):
    """The number of batches that a loader of a training set makes in an epoch.

    Arguments
    ---------
    items : int
        Size of the set.
    options : dict
        Options of the loader; see :func:`loader_options`.
    things : str
        Name of the items, for the error.

    Raises
    ------
    SystemExit
        If there is no batch.

    Example
    -------
    >>> count_batches(7, {"batch_size": 2, "drop_last": False}, "clips")
    4
    """
    if "batch_sampler" in options:
        return len(options["batch_sampler"])
    whole, rest = divmod(items, options["batch_size"])
    batches = whole + (rest > 0 and not options["drop_last"])
    if not batches:
        raise SystemExit(
            f"{items} training {things} do not fill one batch of {options['batch_size']}: set --batch_size lower"
        )
    return batches
