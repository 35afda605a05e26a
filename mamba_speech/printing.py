"""What the commands print: a line or a JSON object for each result, and the files that failed at the end."""

import json
import sys

from tqdm import tqdm

from mamba_speech.audio import collected_warnings, count_kinds, recording_fault
from mamba_speech.audio.names import has_controls, plain


def each_file(files, work):
    """Work through files, and turn what is wrong with one of them into a record of its own.

    Arguments
    ---------
    files : iterable of Path or mamba_speech.recordings.Recording
    work : callable
        From one of these to an iterable of records.

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
                yield {**_place(file), **record, **with_warnings(odd)}
                told = len(odd)
            if len(odd) > told:
                yield {**_place(file), "warnings": odd}
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


def print_records(records, columns, done, as_json=False, total=None):
    """Print records as they come, and the errors and warnings among them on stderr at the end.

    Arguments
    ---------
    records : iterable of dict
        Those with the key ``error`` are of files that failed. ``warnings`` is a list of
        :class:`mamba_speech.audio.AudioWarning`; JSON gets their kinds.
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
    errors, odd = [], {}
    hidden = None if total is not None and total > 1 else True
    bar = tqdm(records, total=total, unit="file", disable=hidden, leave=False, mininterval=0.5)
    for record in bar:
        if "error" in record:
            errors.append(record["error"])
        odd |= dict.fromkeys(record.get("warnings", ()))
        # the bar makes way for the line
        with bar.external_write_mode():
            if as_json:
                print(json_line(_for_json(record)), flush=True)
            elif "error" not in record and record.keys() - {"path", "warnings"}:
                print(*(plain(str(one)) for one in columns(record)), sep="\t", flush=True)
    if errors:
        count = "1 file was" if len(errors) == 1 else f"{len(errors)} files were"
        lines = (plain(error, backslashes=False) for error in errors)
        print(f"mamba-speech: {count} not {done}:", *lines, sep="\n  ", file=sys.stderr)
    print_warnings(odd)
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
