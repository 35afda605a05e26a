"""Checking many recordings at once: in threads where they are few, in processes where they are very many.

Opening a small file takes longer in Python than on a disk, so threads wait for each other. A process is a fresh
interpreter that reads lists of paths from its standard input; it ends when that is closed.
"""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from data_prep.inspection import FULL, examine
from mamba_speech.audio import AudioWarning

# Fewer recordings are checked before the processes have started.
MANY = 20000
# Recordings that a thread or a process checks at a time.
SHARE = 128
# Why a recording without a sound is left out.
SILENT = "silent audio"
ROOT = Path(__file__).resolve().parents[2]


class Checkers:
    """Threads or processes that open recordings; to be used as a context.

    Arguments
    ---------
    total : int
        How many recordings there are.
    workers : int, optional
        Recordings opened at a time; by default one for each processor, or two where threads suffice, at most 16.
    verify : str
        See `data_prep.inspection.inspect`.

    Attributes
    ----------
    odd : list of AudioWarning
        What is odd about the recordings that can be used, as far as they were checked.

    Example
    -------
    >>> with Checkers(total=2, workers=1) as checkers:
    ...     [result] = checkers.map([["nowhere.wav", "missing.flac"]])
    >>> result
    [(0, 1, 'audio file not found'), (0, 1, 'audio file not found')]
    """

    def __init__(self, total, workers=None, verify=FULL):
        cores = os.cpu_count() or 1
        self._in_processes = total >= MANY
        self.workers = workers or min(cores if self._in_processes else 2 * cores, 16)
        self._verify, self._processes, self.odd = verify, [], []
        self._free = SimpleQueue()

    def __enter__(self):
        for _ in range(self.workers if self._in_processes else 0):
            process = subprocess.Popen(
                [sys.executable, "-m", "data_prep.speakers.checker", self._verify],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
            self._processes.append(process)
            self._free.put(process)
        self._threads = ThreadPoolExecutor(self.workers)
        return self

    def __exit__(self, *exception):
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def map(self, shares):
        """Check recordings.

        Arguments
        ---------
        shares : iterable of list of str
            Paths. All of it is drawn at once, so pass a few thousand paths at a time.

        Yields
        ------
        results : list of (int, int, str or None)
            Of each share: frames, sample rate and fault, as `inspect_voice` gives them.

        Raises
        ------
        RuntimeError
            If a process has ended.
        """
        return self._threads.map(self._check, shares)

    def _check(self, paths):
        found, odd = self._lend(paths) if self._processes else inspect_all(paths, self._verify)
        self.odd += [AudioWarning(*one) for one in odd]
        return [tuple(one) for one in found]

    def _lend(self, paths):
        process = self._free.get()
        try:
            process.stdin.write(json.dumps(paths).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            self._free.put(process)
        if not line:
            raise RuntimeError(
                f"a process that checks recordings has ended (status {process.wait()}); its messages stand above"
            )
        return json.loads(line)


def inspect_all(paths, verify=FULL):
    """`inspect_voice` each path: a list of (frames, sample rate, fault), and the warnings about those without one."""
    odd = []
    return [inspect_voice(path, verify, odd) for path in paths], odd


def inspect_voice(path, verify=FULL, odd=None):
    """Frames, sample rate and fault of a recording; a silent one has no speaker, where it is read whole.

    Arguments
    ---------
    path, verify, odd
        See `data_prep.inspection.inspect`.
    """
    found = examine(path, verify)
    if found.silent:
        return 0, 1, SILENT
    if odd is not None and not found.reason:
        odd.extend(found.warnings)
    return found.frames, found.rate, found.reason


def _end_with_parent(parent):
    """End this process when its parent is dead, whatever it decodes."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main():
    """Answer each line of standard input, a JSON list of paths, with a line of results."""
    verify = sys.argv[1]
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    for line in sys.stdin.buffer:
        answer = json.dumps(inspect_all(json.loads(line), verify))
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
