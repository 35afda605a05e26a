"""Repeat a row of RESULTS.md: make its data, train, test, and compare the figure with the row's interval."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from mamba_speech.files import read_json, write_json
from training.provenance import find_commit, processor
from training.results_page.entries import ROOT, look_up, repeat_interval

RECORD = "repeat.json"
# status of a program that was ended from outside
STOPPED = 130


def repeat(entry, root=ROOT):
    """Run a row's commands, and compare.

    Arguments
    ---------
    entry : Entry
    root : Path
        Folder that the commands run in.

    Returns
    -------
    int
        0 if the figure falls into the interval, 1 if not, 130 if it was stopped.

    Raises
    ------
    OSError or ValueError
        If no command repeats the row, a folder that it needs is missing, a command fails, or leaves no figure.
    """
    if entry.minutes is None:
        raise ValueError(f"{entry.name}: no command repeats this row. {entry.note or ''}".strip())
    check_needs(entry)
    folder = root / entry.output
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_record(folder)
    try:
        _run_all(entry, done, folder, root)
    except KeyboardInterrupt:
        print(f"\nStopped. `make results {entry.name}` goes on from here.", file=sys.stderr)
        return STOPPED
    value = read_figure(entry, root)
    inside, line = verdict(entry, value)
    write_json(folder / RECORD, done | {"figure": value, "verdict": line})
    print(line)
    _tell_old_commit(entry, done)
    return 0 if inside else 1


def check_needs(entry):
    """Refuse a row whose folders are missing.

    Raises
    ------
    ValueError
        Naming the folder, and what to do.
    """
    for need in entry.needs:
        variables = re.findall(r"\$(\w+)", need)
        unset = [name for name in variables if not os.environ.get(name)]
        if unset:
            raise ValueError(
                f"{entry.name}: needs {need}: set {unset[0]} to the folder of the corpora "
                f"(docs/data.md), as in {unset[0]}=FOLDER make results {entry.name}"
            )
        if not Path(os.path.expandvars(need)).exists():
            raise ValueError(
                f"{entry.name}: {os.path.expandvars(need)}: no such folder; docs/data.md says where its data come from"
            )


def _read_record(folder):
    try:
        found = read_json(folder / RECORD)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("done"), dict):
        found = {"done": {}}
    return {"done": found["done"], "commit": found.get("commit") or _commit()}


def _commit():
    found = find_commit(ROOT)
    return None if found is None else found[0]


def _run_all(entry, done, folder, root):
    for line in entry.lines:
        print(f"$ {line}", flush=True)
        # data are shared between rows, and making them twice does nothing
        if line in done["done"] and line not in entry.commands.get("data", ()):
            print("Done before; nothing to do.")
            continue
        began = time.monotonic()
        run_line(line, root)
        done["done"][line] = round(time.monotonic() - began, 1)
        write_json(folder / RECORD, done)


def run_line(line, root=ROOT):
    """Run one line in a shell of its own, which ends with this process.

    Arguments
    ---------
    line : str
    root : Path

    Raises
    ------
    ValueError
        If it fails.
    """
    # `python` is the Python that runs this
    own = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{own}{os.pathsep}{os.environ.get('PATH', '')}"}
    process = subprocess.Popen(
        ["sh", "-c", line], cwd=root, env=environment, start_new_session=True
    )
    try:
        status = process.wait()
    except BaseException:
        _end(process)
        raise
    if status:
        raise ValueError(
            f"this command ended with status {status}; its own words stand above: {line}"
        )


def _end(process):
    """End a shell and what it began; a training that is ended so saves what it has."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=20)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def read_figure(entry, root=ROOT):
    """The repeated figure: the mean over the row's places.

    Raises
    ------
    OSError or ValueError
        If a command left no such file, or no figure in it.
    """
    total, weights = 0.0, 0.0
    for place in entry.read:
        value, weight = look_up(place, root), place.get("weight", 1)
        if isinstance(value, bool) or not isinstance(value, int | float):
            # a fault of the file, not of the call
            raise ValueError(f"{place['file']}: {place['key']} is {value!r}, and no figure")  # noqa: TRY004
        total += weight * value * place.get("factor", 1)
        weights += weight
    return total / weights


def verdict(entry, value):
    """Whether a repeated figure falls into the row's interval, and the line that says so.

    Arguments
    ---------
    entry : Entry
    value : float

    Returns
    -------
    (bool, str)
    """
    low, high, origin = repeat_interval(entry)
    inside = low <= value <= high
    where = "falls into" if inside else "lies below" if value < low else "lies above"
    unit = f" {entry.unit}".rstrip()
    limits = f"{entry.shown(low)} to {entry.shown(high)}{unit}"
    line = (
        f"{entry.name}: {entry.metric} {entry.shown(value)}{unit} {where} {limits} "
        f"({'of the seeds' if origin == 'seeds' else 'of the test'}); RESULTS.md has {entry.measured}"
    )
    here = processor()
    if entry.hardware is None or not entry.hardware.startswith(here):
        line += f"; this machine: {here}, recorded on: {entry.hardware or 'not known'}"
    return inside, line


def _tell_old_commit(entry, done):
    now = _commit()
    if done["commit"] and now and done["commit"] != now:
        print(
            f"This repeat began at commit {done['commit'][:9]}. Remove {entry.output} to repeat with the code of "
            f"{now[:9]}."
        )
