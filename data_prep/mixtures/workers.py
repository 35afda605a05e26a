"""Making many files at once: processes that share a list of work, with a progress bar."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm

# Items that a process takes at a time; fewer are not worth starting one.
SHARE = 8


class Workers:
    """Processes that take work in turn; to be used as a context.

    Arguments
    ---------
    jobs : int, optional
        How many; by default one for each processor, at most 16. 1 works in this process.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If `jobs` is less than 1.

    Example
    -------
    >>> with Workers(jobs=1, progress=False) as workers:
    ...     workers.run(abs, [-3, 2], 2, "absolute values")
    [3, 2]
    """

    def __init__(self, jobs=None, progress=True):
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs must be 1 or more, not {jobs}")
        self.jobs, self.progress = jobs or min(os.cpu_count() or 1, 16), progress
        self._pool = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def run(self, work, items, total, description):
        """Call `work` for each item and give what it returned, but for None, in order.

        Arguments
        ---------
        work : callable
            Can be pickled, as can the items.
        items : list
        total : int
            With those that need no work any more, for the progress bar.
        description : str

        Returns
        -------
        results : list
        """
        results = map(work, items)
        if self.jobs > 1 and len(items) > SHARE:
            # Fresh interpreters: copies of one that has threads may stop for ever.
            context = multiprocessing.get_context("spawn")
            self._pool = self._pool or ProcessPoolExecutor(
                self.jobs, mp_context=context, initializer=end_with_parent
            )
            results = self._pool.map(work, items, chunksize=SHARE)
        bar = tqdm(
            results,
            total=total,
            initial=total - len(items),
            desc=description,
            disable=not self.progress,
            mininterval=0.5,
        )
        return [one for one in bar if one is not None]


def end_with_parent():
    """Let a process end when the one that started it is killed; it would wait for work for ever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
