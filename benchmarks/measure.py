"""What the measuring scripts share: the machine they ran on, interleaved timing, and peak memory.

Times are wall-clock seconds of single calls. Rounds go around all functions in turn, so that what
else the machine does falls on all of them alike; ratios of medians of one run are what counts.
"""

import argparse
import datetime
import gc
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import whole_path, write_json
from training.provenance import load_average, processor

# cores' worth of other programs from which times are no longer to be trusted
_BUSY = 0.25


def machine():
    """The machine and the run, for the JSON of a measurement.

    Returns
    -------
    dict
        Processor, number of cores, load average at this moment, versions of torch and Python,
        torch's threads, the date, OpenMP's environment variables and the command line.
    """
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": load_average(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_"))},
        "command": shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }


class Load:
    """Cores that other programs keep busy: their processor time over wall-clock time.

    Example
    -------
    >>> load = Load()
    >>> 0 <= load.others() <= os.cpu_count()
    True
    """

    def __init__(self):
        self.others_before = _processor_seconds()
        self.started = time.perf_counter()

    def others(self):
        """Cores in use by others since this object was made; ``None`` off Linux."""
        if self.others_before is None:
            return None
        elapsed = max(time.perf_counter() - self.started, 1e-3)
        share = (_processor_seconds() - self.others_before) / elapsed
        return round(min(max(share, 0.0), float(os.cpu_count())), 2)


def _processor_seconds():
    """Processor time that all other programs have used since the machine started."""
    try:
        total = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, interrupt, soft, stolen = map(int, total[:8])
    own = os.times()
    used = (user + nice + system + interrupt + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return used - own.user - own.system - own.children_user - own.children_system


def warn_if_busy(seconds=1.0):
    """Look for ``seconds`` at what else the machine does; say on stderr if it is too much.

    Returns
    -------
    float or None
        Cores that other programs keep busy.
    """
    load = Load()
    time.sleep(seconds)
    others = load.others()
    if others is not None and others > _BUSY:
        print(
            f"warning: other programs keep {others:.1f} of {os.cpu_count()} cores busy; "
            "times will be off, and ratios too where threads wait for each other",
            file=sys.stderr,
        )
    return others


def interleaved(functions, rounds, *, budget=60.0, shortest=0.02):
    """Time functions in turn: one untimed call of each, then ``rounds`` times around all of them.

    Arguments
    ---------
    functions : dict of str to callable
        Called without arguments.
    rounds : int
        Turns that each function gets.
    budget : float
        Seconds after which a function gets no further turns; one it gets in any case.
    shortest : float
        A turn of a quick function goes on for so many seconds, every call being one measurement.

    Returns
    -------
    dict of str to list of float
        Seconds of every timed call.

    Example
    -------
    >>> times = interleaved({"add": lambda: 1 + 1, "sleep": lambda: time.sleep(0.01)}, rounds=2)
    >>> min(times["sleep"]) > min(times["add"])
    True
    """
    times = {name: [] for name in functions}
    spent = {name: _seconds(function) for name, function in functions.items()}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, function in functions.items():
                if times[name] and spent[name] > budget:
                    continue
                turn = 0.0
                while turn == 0.0 or turn < shortest:
                    times[name].append(_seconds(function))
                    turn += times[name][-1]
                spent[name] += turn
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return times


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# The peak is set back to what the process holds before the work, with free pages returned first:
# what the set-up needed for a moment would else hide as much of the work's own.
_CHILD = """
import ctypes, gc, pathlib, re
def _status(name):
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(name + r":\\s+(\\d+)", text).group(1))
{setup}
gc.collect()
try:
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
except (AttributeError, OSError):
    pass  # another C library, or a sandbox: counted from the set-up's peak
_before = _status("VmHWM")
{work}
print(_status("VmHWM") - _before)
"""


def peak_memory(setup, work, timeout=600):
    """Bytes by which ``work`` raises the peak memory of a fresh Python process, which can import this folder's files.

    Arguments
    ---------
    setup : str
        Source that runs first and is not counted: imports, a small call that loads what is loaded
        once.
    work : str
        Source that is counted.
    timeout : float
        Seconds.

    Returns
    -------
    int or None
        ``None`` off Linux, whose ``VmHWM`` is read: getrusage's peak starts from the parent's.

    Raises
    ------
    RuntimeError
        If the sources fail, with what Python said.

    Example
    -------
    >>> peak_memory("", "block = bytearray(2**25)") in (None, *range(2**25 - 2**22, 2**25 + 2**22))
    True
    """
    if not Path("/proc/self/status").exists():
        return None
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(setup=setup, work=work)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        killed = f" (signal {-done.returncode}: out of memory?)" if done.returncode < 0 else ""
        raise RuntimeError(f"measuring memory failed{killed}:\n{done.stderr}")
    return int(done.stdout.splitlines()[-1])


def publish(table, measured, path):
    """Print a table under the first line of its docstring and write its rows as JSON; without rows, neither.

    Arguments
    ---------
    table : callable
        From ``measured`` to a list of rows.
    measured : object
    path : str or Path
        The JSON file.
    """
    if rows := table(measured):
        print(f"\n{table.__doc__.splitlines()[0]}\n{as_text(rows)}", flush=True)
        write_json(path, rows)


def save_figure(figure, path):
    """Write a figure as PNG, whole or not at all."""
    with whole_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def folder(text):
    """An option's folder, made here so that a wrong one is refused before anything is measured."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be a folder: {error.strerror}") from error
    return path


def parse(parser, arguments, rounds, threads=None):
    """Parse a command line with the options that every measuring script has, and set torch's threads.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets ``--rounds``, ``--threads`` and ``--out``.
    arguments : list of str or None
        The command line, the process's own by default.
    rounds : int
        Default of ``--rounds``.
    threads : int, optional
        Default of ``--threads``, torch's own number by default.

    Returns
    -------
    argparse.Namespace
    """
    parser.add_argument("--rounds", type=positive, default=rounds, help="turns of each function")
    threads = threads or torch.get_num_threads()
    parser.add_argument("--threads", type=positive, default=threads, help="torch's threads")
    add_out(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options


def add_out(parser):
    """Give a parser the option ``--out``."""
    results = Path(__file__).parent / "results"
    parser.add_argument(
        "--out", type=folder, default=results, help="folder of the JSON and the plot"
    )


def positive(text):
    """An option's whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value
