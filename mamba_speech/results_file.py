"""A file of results that a killed command goes on with: `--output_file`, and `--resume`.

Results are added as they come. Beside the file stands another one, which tells the recordings that are done and where
their results end. So half a result is cut off, and made again.
"""

import json
import os
import sys
from collections import deque
from pathlib import Path

from mamba_speech.arguments import given_path
from mamba_speech.audio.names import plain

SUFFIX = ".progress"
# what does not change a result
_PASSING = {"inputs", "raw", "device", "resume", "overwrite", "output_file", "batch_seconds"}
_PASSING |= {"run", "refuse", "takes_many", "output_folder"}


def add_output_file(parser):
    """Add `--output_file`."""
    parser.add_argument(
        "--output_file",
        type=given_path,
        metavar="FILE",
        help="file of the results, in place of stdout; what fails is told on stderr alone",
    )


def add_existing(parser, what):
    """Add `--resume` and `--overwrite`, which say what becomes of results that are there.

    Arguments
    ---------
    parser : argparse.ArgumentParser
    what : str
        Where results lie, for the help.
    """
    parser.add_argument(
        "--resume",
        "--skip_existing",
        action="store_true",
        help=f"recordings left out whose results lie in {what}; so a killed command goes on",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replacement of results that are there"
    )


def check_existing(arguments, needed):
    """Refuse `--resume` and `--overwrite` without results in files, and both at once.

    Arguments
    ---------
    arguments : argparse.Namespace
    needed : tuple of str
        Options of which one must be given.

    Raises
    ------
    ValueError
    """
    given = next((one for one in ("resume", "overwrite") if getattr(arguments, one)), None)
    if given and not any(getattr(arguments, one) for one in needed):
        raise ValueError(f"--{given} is for files: give --{' or --'.join(needed)} too")
    if arguments.resume and arguments.overwrite:
        raise ValueError("--overwrite and --resume contradict one another: give one of them")


def results_file(arguments):
    """The :class:`ResultsFile` that the arguments of a command ask for; None if they ask for none."""
    if arguments.output_file is None:
        return None
    settings = {
        name: value
        for name, value in vars(arguments).items()
        if name not in _PASSING and (value is None or isinstance(value, str | int | float | list))
    }
    settings["run_folder"] = os.path.realpath(arguments.run_folder)
    existing = "replace" if arguments.overwrite else "resume" if arguments.resume else "refuse"
    return ResultsFile(arguments.output_file, settings, existing)


class ResultsFile:
    """Results of recordings, in the order of the recordings.

    Arguments
    ---------
    path : str or Path
    settings : dict
        What decides on the results, as JSON has it. A file is resumed with the same ones only.
    existing : str
        `refuse` a file that is there, `replace` it, or `resume` it.

    Raises
    ------
    OSError
        If it cannot be written.
    ValueError
        If a file that is there was not asked for, is of other settings, or was changed since.
    """

    def __init__(self, path, settings, existing="refuse"):
        self.path, self._journal = Path(path), Path(f"{path}{SUFFIX}")
        self._done, self._waiting = set(), deque()
        there = [one for one in (self.path, self._journal) if os.path.lexists(one)]
        if there and existing == "refuse":
            raise ValueError(
                f"--output_file {there[0]} is there already: give --resume to go on with it, --overwrite to replace "
                "it, or another file"
            )
        if there and existing == "resume":
            end = self._read(settings)
            with open(self.path, "rb+") as file:
                file.truncate(end)
            self._file = open(self.path, "ab")  # noqa: SIM115 - closed by close()
            return
        self._file = open(self.path, "wb")  # noqa: SIM115 - closed by close()
        self._journal.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")

    def _read(self, settings):
        """Take what is done from the journal; returns where its results end."""
        try:
            first, *lines = self._journal.read_text(encoding="utf-8").splitlines()
            before, end = json.loads(first)["settings"], 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"--output_file {self.path}: cannot be resumed, since {self._journal.name} beside it does not tell "
                "what is done: give --overwrite, or another file"
            ) from error
        other = next(
            (one for one in {**before, **settings} if before.get(one) != settings.get(one)), None
        )
        if other is not None:
            raise ValueError(
                f"--output_file {self.path}: was begun with {other} {before.get(other)}, not {settings.get(other)}: "
                "give the same, --overwrite, or another file"
            )
        for line in lines:
            try:
                key, end = json.loads(line)
            except (TypeError, ValueError):
                # a killed run leaves half a line at most
                break
            self._done.add(json.dumps(key))
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < end:
            raise ValueError(
                f"--output_file {self.path}: holds less than was written into it: give --overwrite, or another file"
            )
        if not self.path.exists():
            self.path.touch()
        # the half line must not be continued
        kept = [first, *lines[: len(self._done)]]
        self._journal.write_text("\n".join(kept) + "\n", encoding="utf-8")
        return end

    def left(self, recordings, key=None):
        """The recordings that are to be done; the others have their results.

        Arguments
        ---------
        recordings : list
        key : callable, optional
            From one to what tells it from others, as JSON has it; by default of a Recording.

        Returns
        -------
        list
        """
        key = key or recording_key
        pairs = [(one, json.dumps(key(one))) for one in recordings]
        left = [(one, name) for one, name in pairs if name not in self._done]
        self._waiting = deque(name for _, name in left)
        return [one for one, _ in left]

    def write(self, line):
        """Add a line."""
        self._file.write(line.encode("utf-8", "surrogateescape") + b"\n")

    def finish(self, failed):
        """The next recording is done, unless it failed: then it is tried again when the command is resumed."""
        name = self._waiting.popleft()
        self._file.flush()
        if failed or name == json.dumps(None):
            return
        self._done.add(name)
        with open(self._journal, "a", encoding="utf-8") as file:
            file.write(f"[{name}, {self._file.tell()}]\n")

    def close(self):
        """Close the file."""
        self._file.close()


def recording_key(recording):
    """What tells a recording from others: its path, and of a row of a list its id and its part.

    None for standard input, which may be another recording the next time.
    """
    if recording.told is not None:
        return None
    row = recording.row
    part = [] if row is None else [row.id, row.start, row.stop]
    return [os.path.abspath(recording.path), *part]


def left_recordings(results, recordings, key=None):
    """What is to be done of recordings, with a line on stderr about what is done; see :meth:`ResultsFile.left`."""
    if results is None:
        return recordings
    left = results.left(recordings, key)
    if len(left) < len(recordings):
        count = len(recordings) - len(left)
        text = f"{results.path}: left out, since their results are there: {count}"
        print(f"mamba-speech: {plain(text, backslashes=False)}", file=sys.stderr)
    return left
