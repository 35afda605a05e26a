"""The runs behind a table: one a recipe, left-out speaker and seed; started side by side, never taken for another one.

Beside a run stands what it was asked for, so that the same command again goes on where it was stopped, and another
one does not take its result for its own.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import yaml as pyyaml

from mamba_speech.files import write_json
from training.options import given_options, read_keys, translate
from training.results import is_tested, read_rows

HERE = Path(__file__).resolve().parent
RECORD = "run.json"
# seconds that a process has to end itself before it is killed
PATIENCE = 10


class Run(NamedTuple):
    """What is run: ``yaml`` and ``options`` are arguments of ``script``, and ``folder`` is where its files go."""

    script: str
    recipe: str
    yaml: str
    folder: Path
    options: tuple
    speaker: str | None = None
    seed: int | None = None

    @property
    def name(self):
        """For the line that tells of it."""
        parts = (self.recipe, self.speaker, self.seed is not None and f"seed {self.seed}")
        return " ".join(part for part in parts if part)

    @property
    def log(self):
        """Where what it prints goes."""
        return self.folder / f"{Path(self.script).stem}.log"

    @property
    def result(self):
        """The file that holds what it found."""
        return self.folder / ("rate.json" if self.script == "rate.py" else "results.json")

    @property
    def has_result(self):
        """Whether that file holds it: a training writes its own before there is anything to tell.

        Raises
        ------
        ValueError
            If the file cannot be read.
        """
        return self.result.is_file() if self.script == "rate.py" else is_tested(self.folder)

    @property
    def command(self):
        """What starts it."""
        first = [sys.executable, str(HERE / self.script)]
        if self.script == "rate.py":
            return [*first, str(self.result), self.yaml, *self.options]
        return [*first, self.yaml, *self.options, "--output_folder", str(self.folder)]

    def read(self):
        """What rate.py has written."""
        return json.loads(self.result.read_text(encoding="utf-8"))

    def asked(self):
        """Every option that holds a number, a text or a list, from the YAML and the command line, as text by name."""
        return plain_options(self.yaml) | self._given_options()

    def is_finished(self):
        """Whether it has run to its end before.

        Raises
        ------
        ValueError
            If the folder holds a run with other options.
        """
        record = self.folder / RECORD
        if not record.is_file():
            if self.result.is_file() or any(self.folder.glob("save/CKPT*")):
                raise ValueError(
                    f"{self.folder}: holds a run that this command did not start; give another --out"
                )
            return False
        found, asked = json.loads(record.read_text(encoding="utf-8")), self.asked()
        # an option that only one of the YAML's versions has is no contradiction
        for name in sorted(found["options"].keys() & asked.keys()):
            if found["options"][name] != asked[name]:
                raise ValueError(
                    f"{self.folder}: holds a run with --{name} {found['options'][name]}, and not {asked[name]}: give "
                    "the options that it was started with, or another --out"
                )
        one_sided = (set(found["given"]) ^ set(self.given)) - (
            found["options"].keys() & asked.keys()
        )
        if one_sided:
            raise ValueError(
                f"{self.folder}: holds a run with{'out' if min(one_sided) in self.given else ''} --{min(one_sided)}: "
                "give the options that it was started with, or another --out"
            )
        return found["finished"] and self.has_result

    @property
    def given(self):
        """Names of the options on the command line."""
        return sorted(self._given_options())

    def _given_options(self):
        return given_options(translate(self.options, read_keys(self.yaml))[0])

    def note(self, finished):
        """Write beside the run what it was asked for, and whether it has ended well."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"options": self.asked(), "given": self.given, "finished": finished}
        write_json(self.folder / RECORD, record)


def plain_options(path):
    """Top-level keys of a YAML that hold a number, a text, a switch or a list, with their values as text."""
    node = pyyaml.compose(Path(path).read_text(encoding="utf-8"), Loader=pyyaml.SafeLoader)
    return {
        key.value: str(pyyaml.safe_load(pyyaml.serialize(value)))
        for key, value in node.value
        if value.tag.startswith("tag:") and not isinstance(value, pyyaml.MappingNode)
    }


def run_all(runs, jobs, say=print):
    """Run what has not been run yet, and tell of each as it ends.

    Arguments
    ---------
    runs : list of Run
    jobs : int
        Side by side at most; each computes with one thread.
    say : callable
        Gets a line a run.

    Returns
    -------
    list of Run
        Those that failed.

    Raises
    ------
    ValueError
        Before anything is started, if a folder holds a run with other options; or if a run in it is still going on,
        as after the end of a compare.py that was killed.
    """
    waiting = [run for run in runs if not run.is_finished()]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} of {len(runs)} finished before")
    failed = []
    # closing: an interruption in here stops what runs
    with contextlib.closing(_ended(waiting, jobs)) as ended:
        for number, (run, status, seconds) in enumerate(ended, 1):
            place = f"[{number}/{len(waiting)}] {run.name}"
            if status or not run.has_result:
                failed.append(run)
                say(f"{place}: failed: {last_line(run.log)} ({run.log})")
            else:
                run.note(finished=True)
                say(f"{place}: {told(run)}, {seconds:.0f} s")
    return failed


def _ended(runs, jobs):
    """Start the runs, and give each as it ends with its exit status and seconds; stops those that are left."""
    # whatever the jobs, so that their number changes no budget: processor time counts every thread
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
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


def told(run):
    """A run's figure, for the line that tells of it."""
    if run.script == "rate.py":
        return f"{run.read()['seconds_a_step']:.3f} s a step"
    return f"accuracy {read_rows(run.folder)['test']['accuracy']:.2f} %"


def last_line(log):
    """The last line of a log that says anything."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
