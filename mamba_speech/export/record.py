"""What a run recorded of itself, for an exported folder: without the places of files on the machine that trained it."""

import re
from pathlib import Path, PurePosixPath

from mamba_speech.files import read_json

RECORD = "results.json"
# an absolute path, of any system, or one below a home folder; within a list too
_PLACE = re.compile(r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?[/\\][^\s,'\"\[\]]*")


def read_record(run_folder):
    """The record of a run, with names of files in place of absolute paths.

    Arguments
    ---------
    run_folder : str or Path

    Returns
    -------
    dict
        Empty if the run has no record that can be read.
    """
    try:
        record = read_json(Path(run_folder) / RECORD)
    except (OSError, ValueError):
        return {}
    return hide_places(record) if isinstance(record, dict) else {}


def hide_places(value):
    """A plain value in which absolute paths have lost all but their last part.

    Example
    -------
    >>> hide_places({"data_folder": "/home/ada/LibriSpeech", "lists": ["a/b.csv", "/x/c.csv"], "lr": "1e-3"})
    {'data_folder': '.../LibriSpeech', 'lists': ['a/b.csv', '.../c.csv'], 'lr': '1e-3'}
    """
    if isinstance(value, dict):
        return {name: hide_places(one) for name, one in value.items()}
    if isinstance(value, list):
        return [hide_places(one) for one in value]
    if not isinstance(value, str):
        return value
    return _PLACE.sub(lambda found: _last_part(found[0]), value)


def _last_part(path):
    name = PurePosixPath(path.replace("\\", "/")).name
    return f".../{name}" if name else path
