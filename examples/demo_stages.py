"""Running the demo's commands: each once, in a folder that one demo has for itself, with its time on record."""

import contextlib
import fcntl
import subprocess
import time
from contextlib import contextmanager

from demo_console import StageDisplay, shown, typed

from mamba_speech.files import read_json, write_json

LOCK_SECONDS = 15


class Stages:
    """The stages that a demo has gone through, and how long they took.

    Arguments
    ---------
    folder : Path
        Folder of the demo. It is made.
    options : dict
        All that determines what the stages do.
    bar : bool
        Whether to show progress bars.

    Raises
    ------
    ValueError
        If the folder holds a demo with other options or of another version, or its record is damaged.
    RuntimeError
        If another demo, or a training that it began, still works in the folder.
    """

    def __init__(self, folder, options, bar):
        self.folder, self.bar = folder, bar
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{shown(folder)} is a file: give another --output_folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        self._file = folder / "demo.json"
        self.record = {"options": options, "stages": {}}
        if self._file.exists():
            self.record = _read_record(self._file)
            _check_same(self.record["options"], options, folder)
        # the time that Python has taken to load what the demo needs
        with self.timed("start") as stage:
            stage["seconds"] += time.process_time()

    def save(self):
        """Write the record."""
        write_json(self._file, self.record)

    @contextmanager
    def timed(self, name):
        """Add the time that a block takes to a stage; gives the stage's entry of the record."""
        stage = self.record["stages"].setdefault(
            name, {"seconds": 0.0, "starts": 0, "finished": False}
        )
        stage["starts"] += 1
        self.save()
        began = time.monotonic()
        try:
            yield stage
            stage["finished"] = True
        finally:
            stage["seconds"] = round(stage["seconds"] + time.monotonic() - began, 1)
            self.save()

    def seconds(self):
        """What all stages took until now."""
        return sum(stage["seconds"] for stage in self.record["stages"].values())

    def run(self, name, command, done, environment, epochs=0, processes=1):
        """Run a command unless its work is done.

        Arguments
        ---------
        name : str
            Of the stage.
        command : list of str
        done : bool
            Whether what it makes is there.
        environment : dict of str: str
        epochs : int
            How many it trains; 0 where it trains nothing.
        processes : int
            How many of its processes compute.

        Raises
        ------
        RuntimeError
            If it fails.
        """
        print(f"$ {typed(command)}", flush=True)
        stage = self.record["stages"].get(name)
        if done and stage is not None and stage["finished"]:
            print("Done before; nothing to do.")
            return
        display = StageDisplay(self.bar, epochs)
        with self.timed(name) as stage:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            try:
                with self._child(command, env=environment, **pipes) as process:
                    display.follow(process.stdout)
                    status = process.wait()
            finally:
                if display.loads and epochs:
                    others = sum(display.loads) / len(display.loads) - processes
                    stage["load_of_others"] = round(max(0.0, others), 2)
            _check(status, display)

    @contextmanager
    def _child(self, command, **options):
        """A process that ends when this one is interrupted.

        It holds the lock, too: if this one is killed, the folder stays its own until it ends.
        """
        with subprocess.Popen(command, pass_fds=(self._lock.fileno(),), **options) as process:
            try:
                yield process
            except BaseException:
                process.terminate()
                with contextlib.suppress(OSError):
                    # what is still in the pipe must not keep it from ending
                    process.stdout.close()
                raise


def _check(status, display):
    if display.killed_by is not None or status < 0:
        raise RuntimeError(
            f"a process was killed by signal {display.killed_by or -status}, as the system does where memory is "
            "short; the same command goes on"
        )
    if status != 0:
        raise RuntimeError(
            f"this command ended with status {status}; its last lines were:\n{display.last_lines()}"
        )


def _read_record(path):
    """What an earlier start wrote down."""
    advice = f"give another --output_folder, or remove {shown(path.parent)}"
    try:
        found = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from error
    parts = [found.get(name) for name in ("options", "stages")] if isinstance(found, dict) else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{shown(path)}: no record of a demo; {advice}")
    return found


def _check_same(found, wanted, folder):
    if found.keys() != wanted.keys():
        # its options mean something else now, so nobody can give them again
        raise ValueError(
            f"{shown(folder)} holds a demo of another version of this project; give another --output_folder, or "
            "remove the folder"
        )
    differing = [f"--{key} was {found.get(key)}" for key in wanted if found.get(key) != wanted[key]]
    if differing:
        raise ValueError(
            f"{shown(folder)} holds a demo with other options ({', '.join(differing)}); give them "
            "again, or another --output_folder, or remove the folder"
        )


def _lock(folder):
    """A file that only one demo at a time can hold.

    The loading processes of a training that was stopped notice it within some seconds.
    """
    file = open(folder / ".lock", "w")  # noqa: SIM115 (open as long as the demo runs)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                file.close()
                raise RuntimeError(
                    f"another demo, or a training that one began, still works in {shown(folder)}; "
                    "let it end, or stop it"
                ) from error
        time.sleep(0.2)
