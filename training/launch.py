"""Training runs started side by side, each with a folder, a log and a note of its own.

The note tells what a run was asked for. So the same command again goes on where it was stopped, and a command with
other options never takes the run for its own.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import yaml as pyyaml

from mamba_speech.files import read_json, write_json
from training.options import (
    find_options,
    given_options,
    read_command_line,
    read_keys,
    translate,
)
from training.results import is_tested, read_rows

NOTE = "run.json"
# seconds that a process has to end itself before it is killed
PATIENCE = 10


class Run(NamedTuple):
    """A run of a training script.

    Arguments
    ---------
    system : str
        Name of the system that it belongs to.
    script, yaml : Path
    options : tuple of str
        Command line after the YAML, without the output folder.
    folder : Path
        Output folder.
    seed : int
    part : str, optional
        What tells it from the system's other runs of the same seed.
    """

    system: str
    script: Path
    yaml: Path
    options: tuple
    folder: Path
    seed: int
    part: str | None = None

    @property
    def name(self):
        """Words that tell it from the other runs."""
        return " ".join(filter(None, (self.system, self.part, f"seed {self.seed}")))

    @property
    def log(self):
        """The file that takes what the run prints."""
        return self.folder / f"{Path(self.script).stem}.log"

    @property
    def command(self):
        """The command that starts it."""
        words = (self.script, self.yaml, *self.options, "--output_folder", self.folder)
        return [sys.executable, *map(str, words)]

    @property
    def given(self):
        """Options of the command line as text, by their names here."""
        return given_options(translate(self.options, read_keys(self.yaml))[0])

    def asked(self):
        """Every option that holds a number, a text or a list, from the YAML and the command line, as text by name."""
        return plain_options(self.yaml) | self.given

    def check(self):
        """Read the command line as the script will.

        Raises
        ------
        ValueError
            If an option is unknown, given twice or missing.
        """
        try:
            read_command_line(self.command[2:], find_options(self.script))
        except SystemExit as error:
            raise ValueError(f"{self.system}: {error}") from error

    def note(self, finished):
        """Write beside the run what it was asked for, and whether it has ended well."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = {"script": Path(self.script).name, "yaml": Path(self.yaml).name}
        note |= {"options": self.asked(), "given": sorted(self.given), "finished": finished}
        write_json(self.folder / NOTE, note)

    def is_finished(self):
        """Whether it has run to its end before.

        Raises
        ------
        ValueError
            If the folder holds another run that has learned something, or its record cannot be read.
        """
        if not (self.folder / "results.json").is_file() and not any(self.folder.glob("save/CKPT*")):
            # a run that failed at once, by a wrong folder, say, binds nobody to its options
            return False
        note = self.folder / NOTE
        if not note.is_file():
            raise ValueError(
                f"{self.folder}: holds a run that this command did not start; give another --out"
            )
        found = read_json(note)
        self._refuse_another(found)
        return found["finished"] and is_tested(self.folder)

    def _refuse_another(self, found):
        """Compare what the run in the folder was asked for with what this one is."""
        remedy = "give the options that it was started with, or another --out"
        asked = self.asked()
        for kind in ("script", "yaml"):
            if found.get(kind) != Path(getattr(self, kind)).name:
                raise ValueError(f"{self.folder}: holds a run of {found.get(kind)}: {remedy}")
        # an option that only one of the YAML's versions has is no contradiction
        both = found["options"].keys() & asked.keys()
        for name in sorted(both):
            if found["options"][name] != asked[name]:
                raise ValueError(
                    f"{self.folder}: holds a run with --{name} {found['options'][name]}, and not {asked[name]}: "
                    f"{remedy}"
                )
        one_sided = (set(found["given"]) ^ set(self.given)) - both
        if one_sided:
            name = min(one_sided)
            word = "without" if name in self.given else "with"
            raise ValueError(f"{self.folder}: holds a run {word} --{name}: {remedy}")


def plain_options(path):
    """Top-level keys of a YAML that hold a number, a text, a switch or a list, with their values as text."""
    node = pyyaml.compose(Path(path).read_text(encoding="utf-8"), Loader=pyyaml.SafeLoader)
    return {
        key.value: str(pyyaml.safe_load(pyyaml.serialize(value)))
        for key, value in node.value
        if value.tag.startswith("tag:") and not isinstance(value, pyyaml.MappingNode)
    }


def run_all(runs, jobs, metric, say=print):
    """Run what has not been run yet, and tell of each as it ends.

    Arguments
    ---------
    runs : list of Run
    jobs : int
        Number of runs side by side. From two on each computes on one thread, unless OMP_NUM_THREADS says otherwise.
    metric : str
        Figure of the record that is told.
    say : callable
        Function that gets a line a run.

    Returns
    -------
    list of Run
        Those that failed.

    Raises
    ------
    ValueError
        Before anything is started, if a folder holds another run; or if the run in it is still going on, as after a
        command that was killed.
    """
    waiting = [run for run in runs if not run.is_finished()]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} of {len(runs)} finished before")
    failed = []
    # closing: an interruption in here stops what runs
    with contextlib.closing(_ended(waiting, jobs)) as ended:
        for number, (run, status, seconds) in enumerate(ended, 1):
            place = f"[{number}/{len(waiting)}] {run.name}"
            if status or not is_tested(run.folder):
                failed.append(run)
                say(f"{place}: failed: {last_line(run.log)} ({run.log})")
            else:
                run.note(finished=True)
                say(f"{place}: {told(run, metric)}, {seconds:.0f} s")
    return failed


def _ended(runs, jobs):
    """Start the runs, and give each as it ends with its exit status and seconds; stops those that are left."""
    environment = ({"OMP_NUM_THREADS": "1"} if jobs > 1 else {}) | os.environ
    waiting, running = deque(runs), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                run.folder.mkdir(parents=True, exist_ok=True)
                with open(run.log, "a", encoding="utf-8") as log:
                    _claim(run, log)
                    process = subprocess.Popen(
                        run.command,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        # a group of its own, so that its loaders' workers are stopped with it
                        start_new_session=True,
                    )
                running[process] = run, time.monotonic()
            ended = [process for process in running if process.poll() is not None]
            for process in ended:
                run, began = running.pop(process)
                yield run, process.returncode, time.monotonic() - began
            if not ended:
                time.sleep(0.1)
    finally:
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()


def _claim(run, log):
    """Lock the log, which the run's processes keep open, and so hold, until the last of them has ended."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"{run.folder}: its run is still going on, started by a command that is no longer waiting for it or by "
            "another one: wait until it has ended, or end it"
        ) from error
    run.note(finished=False)


def _signal(process, number):
    # it may have ended in the meantime
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def told(run, metric):
    """A run's figure of each test set, for the line that tells of it."""
    rows = read_rows(run.folder)
    figures = (f"{name}: {metric} {row[metric]:.2f}" for name, row in rows.items() if metric in row)
    return ", ".join(figures)


def last_line(log):
    """The last line of a log that says anything."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
