"""Names of the files that are made of recordings, where some of the recordings are rows of a list."""

import os
import unicodedata
from pathlib import PurePath

from mamba_speech.lists import is_list
from mamba_speech.recordings import Recording, recordings_in


def plan_recordings(inputs, plan_files, name_output):
    """Which recordings are worked on, and the files that are made of them.

    Arguments
    ---------
    inputs : list of str or mamba_speech.recordings.Recording
        Files, folders, lists, and what was copied from standard input.
    plan_files : callable
        Function from files and folders to a dictionary from paths to outputs.
    name_output : callable
        Function from a name, which may have folders, to an output.

    Returns
    -------
    plan : dict of mamba_speech.recordings.Recording to Path
        The name of a row of a list is its id. Without an id it is the path that the list has, with the times of a
        part. A name that is taken gets a number.
    """
    files, rows = [], []
    for one in inputs:
        (rows if isinstance(one, Recording) or is_list(one) else files).append(one)
    found = plan_files(files) if files else {}
    plan = {Recording(path): output for path, output in found.items()}
    taken = {_folded(output) for output in found.values()}
    for recording in recordings_in(rows):
        stem, number = row_name(recording), 1
        output = name_output(stem)
        while _folded(output) in taken:
            number += 1
            output = name_output(f"{stem}~{number}")
        taken.add(_folded(output))
        plan[recording] = output
    return plan


def row_name(recording):
    """A name for what is made of a row of a list; it leads to no folder above.

    Example
    -------
    >>> from mamba_speech.lists import ListRow
    >>> row = ListRow(place="line 2", name="../clips/a.wav", start=1.5, stop=2.0)
    >>> row_name(Recording.of_row(row, "list.csv"))
    'clips/a_1.50-2.00'
    """
    row = recording.row
    if recording.told is not None:
        return "stdin"
    if row is None:
        return PurePath(recording.path).stem or "list"
    if row.id:
        parts = row.id.replace("\\", "/").replace("\0", "").split("/")
        return "/".join(part for part in parts if part.strip(".")) or "row"
    path = PurePath((row.name or "row").replace("\\", "/"))
    parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
    stem = os.path.splitext("/".join(parts))[0] or "row"
    if not row.is_segment:
        return stem
    end = "" if row.stop is None else f"{row.stop:.2f}"
    return f"{stem}_{row.start or 0:.2f}-{end}"


def _folded(output):
    return unicodedata.normalize("NFC", str(output)).casefold()
