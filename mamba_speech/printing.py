"""What the commands print: a line or a JSON object for each result, and the files that failed at the end."""

import json
import sys
import time

from tqdm import tqdm

from mamba_speech.audio import collected_warnings, count_kinds, recording_fault
from mamba_speech.audio.names import has_controls, plain

# between two lines about the progress, where stderr is no terminal
EVERY_SECONDS = 60.0


def each_file(files, work, marks=False):
    """Work through files, and turn what is wrong with one of them into a record of its own.

    Arguments
    ---------
    files : iterable of Path or mamba_speech.recordings.Recording
    work : callable
        From one of these to an iterable of records.
    marks : bool
        Whether a file may have no record, or several: a record with ``finished`` then follows them.

    Yields
    ------
    dict
        ``path``, and what the work gave or ``error``; of rows of lists ``id``, ``start`` and ``end`` too. Where the
        recording is odd, ``warnings`` too, in a record of its own if they show after the last.
    """
    for file in files:
        odd, told = [], 0
        try:
            for record in _each_collecting(work(file), odd):
                finished = {"finished": False} if marks else {}
                yield {**_place(file), **record, **with_warnings(odd), **finished}
                told = len(odd)
            late = odd if len(odd) > told else []
            if late or marks:
                yield {
                    **_place(file),
                    **with_warnings(late),
                    **({"finished": True} if marks else {}),
                }
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            # standard input has a place of another name than its file
            name = file.name if hasattr(file, "place") else str(file)
            yield {**_place(file), "error": recording_fault(name, error)}


def _place(file):
    # a Path has no such method
    return file.place() if hasattr(file, "place") else {"path": str(file)}


def shown_place(record):
    """The path of a record, with the times of a part.

    Example
    -------
    >>> shown_place({"path": "a.wav"}), shown_place({"path": "a.wav", "start": 0.5, "end": 2.0})
    ('a.wav', 'a.wav:0.50-2.00')
    """
    if "start" not in record:
        return record["path"]
    end = f"{record['end']:.2f}" if "end" in record else ""
    return f"{record['path']}:{record['start']:.2f}-{end}"


def _each_collecting(records, odd):
    """Records, while the warnings of what is read for them are added to a list."""
    records = iter(records)
    while True:
        # not around a yield: whoever takes the record reads other files
        with collected_warnings(odd):
            record = next(records, None)
        if record is None:
            return
        yield record


def with_warnings(odd):
    """The key ``warnings`` of a record, where there are any."""
    return {"warnings": list(odd)} if odd else {}


def print_records(records, columns, done, as_json=False, total=None, results=None):
    """Print records as they come, and the errors and warnings among them on stderr at the end.

    Arguments
    ---------
    records : iterable of dict
        Those with the key ``error`` are of files that failed. ``warnings`` is a list of
        :class:`mamba_speech.audio.AudioWarning`; JSON gets their kinds. Each is the last one of its file, if it does
        not tell otherwise by ``finished``.
    columns : callable
        From a record to the columns of its line, in which control characters are escaped.
    done : str
        Past participle of the work, for the list of files that failed.
    as_json : bool
        Print a JSON object a record, errors included.
    total : int, optional
        Number of the files, if it is known. Then a progress bar is shown where stderr is a terminal, and elsewhere a
        line now and then.
    results : mamba_speech.results_file.ResultsFile, optional
        What takes the lines in place of stdout. Errors do not go there.

    Returns
    -------
    status : int
        Exit status: 1 if a file failed, else 0.

    Example
    -------
    >>> print_records([{"path": "a.wav", "text": "yes"}], lambda one: one.values(), "transcribed") == 0
    a.wav	yes
    True
    """
    errors, odd, progress = [], {}, Progress(total)
    for record in records:
        finished = record.get("finished", True)
        record = {name: value for name, value in record.items() if name != "finished"}
        error = record.get("error")
        if error is not None:
            errors.append(error)
        odd |= dict.fromkeys(record.get("warnings", ()))
        if record.keys() - _PLACE and not (results and error is not None):
            line = _line(record, columns, as_json)
            if line is not None:
                progress.print(line) if results is None else results.write(line)
        if finished:
            progress.add(error is not None)
            if results is not None:
                results.finish(error is not None)
    progress.close()
    if results is not None:
        results.close()
    if errors:
        count = "1 file was" if len(errors) == 1 else f"{len(errors)} files were"
        lines = (plain(error, backslashes=False) for error in errors)
        print(f"mamba-speech: {count} not {done}:", *lines, sep="\n  ", file=sys.stderr)
    print_warnings(odd)
    return 1 if errors else 0


# keys that say which recording a record is of, and nothing of it
_PLACE = {"path", "id", "start", "end"}


def _line(record, columns, as_json):
    """The line of a record; None if it has none."""
    if as_json:
        return json_line(_for_json(record))
    if "error" in record or not record.keys() - {"path", "warnings"}:
        return None
    return "\t".join(plain(str(one)) for one in columns(record))


class Progress:
    """How far a command is: a bar where stderr is a terminal, elsewhere a line every ``EVERY_SECONDS``.

    Arguments
    ---------
    total : int or None
        Number of files; of one file, and of nobody knows how many, nothing is shown.
    """

    def __init__(self, total):
        self.total = total if total is not None and total > 1 else None
        self.done = self.failed = 0
        self.began = self.told = time.monotonic()
        hidden = None if self.total else True
        self.bar = tqdm(total=total, unit="file", disable=hidden, leave=False, mininterval=0.5)

    def print(self, line):
        """Print a line on stdout; the bar makes way for it."""
        with self.bar.external_write_mode():
            print(line, flush=True)

    def add(self, failed):
        """One more file is done."""
        self.done, self.failed = self.done + 1, self.failed + failed
        self.bar.update()
        now = time.monotonic()
        if self.total and self.bar.disable and now - self.told >= EVERY_SECONDS:
            self.told = now
            left = (self.total - self.done) * (now - self.began) / self.done / 60
            failed = f", {self.failed} failed" if self.failed else ""
            text = f"{self.done:,} of {self.total:,} files{failed}, about {left:.1f} minutes left"
            print(f"mamba-speech: {text}", file=sys.stderr, flush=True)

    def close(self):
        """Take the bar away."""
        self.bar.close()


class LongProgress:
    """How far a command is in a long recording: a line on stderr every ``EVERY_SECONDS``, on a terminal every five."""

    def __init__(self):
        self.told = time.monotonic()
        self.every = 5.0 if sys.stderr.isatty() else EVERY_SECONDS

    def __call__(self, recording, seconds):
        """Tell that so many seconds of a :class:`mamba_speech.recordings.Recording` are done."""
        now = time.monotonic()
        if now - self.told >= self.every:
            self.told = now
            minutes, rest = divmod(int(seconds), 60)
            text = f"{plain(str(recording.name))}: {minutes}:{rest:02d} minutes are done"
            tqdm.write(f"mamba-speech: {text}", file=sys.stderr)


def json_line(value):
    """A value as JSON on one line, in letters that stdout can print.

    A byte of a name that is no UTF-8 becomes an escape, which Python's `json` reads as the same name.

    Example
    -------
    >>> print(json_line({"path": "caf\\udce9.wav"}))
    {"path": "caf\\udce9.wav"}
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return json.dumps(value) if has_controls(text) else text


def print_warnings(odd):
    """Print warnings on stderr, counted and listed.

    Arguments
    ---------
    odd : collection of AudioWarning
    """
    if odd:
        texts = (plain(one.text, backslashes=False) for one in odd)
        print(f"mamba-speech: warnings ({count_kinds(odd)}):", *texts, sep="\n  ", file=sys.stderr)


def kinds_of(odd):
    """The key ``warnings`` of a JSON object: kinds; nothing where there are none.

    Example
    -------
    >>> from mamba_speech.audio import AudioWarning
    >>> kinds_of([AudioWarning("truncated", "a.wav: was cut off")]), kinds_of([])
    ({'warnings': ['truncated']}, {})
    """
    return {"warnings": [one.kind for one in odd]} if odd else {}


def _for_json(record):
    return record | kinds_of(record.get("warnings", ()))
