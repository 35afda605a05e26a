"""What the commands print: a line or a JSON object for each result, and the files that failed at the end."""

import json
import sys

from mamba_speech.audio import AudioError


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
        except AudioError as error:
            yield {"path": str(file), "error": str(error)}


def print_records(records, columns, done, as_json=False):
    """Print records as they come, and the errors among them on stderr at the end.

    Arguments
    ---------
    records : iterable of dict
        Those with the key ``error`` are of files that failed.
    columns : callable
        From a record to the columns of its line.
    done : str
        Past participle of the work, for the list of files that failed.
    as_json : bool
        Print a JSON object a record, errors included.

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
    for record in records:
        if "error" in record:
            errors.append(record["error"])
        if as_json:
            print(json.dumps(record, ensure_ascii=False), flush=True)
        elif "error" not in record:
            print(*columns(record), sep="\t", flush=True)
    if errors:
        count = "1 file was" if len(errors) == 1 else f"{len(errors)} files were"
        print(f"mamba-speech: {count} not {done}:", *errors, sep="\n  ", file=sys.stderr)
    return 1 if errors else 0
