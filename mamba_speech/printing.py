"""What the commands print: a line or a JSON object for each result, and the files that failed at the end."""

import json
import sys

from tqdm import tqdm

from mamba_speech.audio import recording_fault
from mamba_speech.audio.names import has_controls, plain


def each_file(files, work):
    """Work through files, and turn what is wrong with one of them into a record of its own.

    Arguments
    ---------
    files : iterable of Path
    work : callable
        From a file to an iterable of records.

    Yields
    ------
    dict
        ``path`` and what the work gave, or ``path`` and ``error``.
    """
    for file in files:
        try:
            for record in work(file):
                yield {"path": str(file), **record}
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            yield {"path": str(file), "error": recording_fault(file, error)}


def print_records(records, columns, done, as_json=False, total=None):
    """Print records as they come, and the errors among them on stderr at the end.

    Arguments
    ---------
    records : iterable of dict
        Those with the key ``error`` are of files that failed.
    columns : callable
        From a record to the columns of its line, in which control characters are escaped.
    done : str
        Past participle of the work, for the list of files that failed.
    as_json : bool
        Print a JSON object a record, errors included.
    total : int, optional
        Number of the records, if it is known. A progress bar is then shown where stderr is a terminal.

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
    errors = []
    hidden = None if total is not None and total > 1 else True
    bar = tqdm(records, total=total, unit="file", disable=hidden, leave=False, mininterval=0.5)
    for record in bar:
        if "error" in record:
            errors.append(record["error"])
        # the bar makes way for the line
        with bar.external_write_mode():
            if as_json:
                print(json_line(record), flush=True)
            elif "error" not in record:
                print(*(plain(str(one)) for one in columns(record)), sep="\t", flush=True)
    if errors:
        count = "1 file was" if len(errors) == 1 else f"{len(errors)} files were"
        lines = (plain(error, backslashes=False) for error in errors)
        print(f"mamba-speech: {count} not {done}:", *lines, sep="\n  ", file=sys.stderr)
    return 1 if errors else 0


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
