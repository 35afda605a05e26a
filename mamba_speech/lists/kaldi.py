"""Rows of a Kaldi folder: wav.scp, and if they are there text, utt2spk and segments.

Source: "Data preparation" of Kaldi's documentation. Commands in wav.scp are never executed.
"""

import os
import re

from mamba_speech.lists.encodings import read_lines
from mamba_speech.lists.rows import ListError, ListRow, make_row

SCRIPT = "wav.scp"
# Kaldi's name of a place within an archive
_OFFSET = re.compile(r":\d+(\[.*\])?$")


def is_kaldi_folder(path):
    """Whether a folder holds Kaldi's list of recordings."""
    return os.path.isfile(os.path.join(path, SCRIPT))


def read_kaldi(folder, locate):
    """Rows of a Kaldi folder, in the order of ``segments``, or else of ``wav.scp``.

    Arguments
    ---------
    folder : str or Path
    locate : callable
        See :class:`mamba_speech.lists.places.Locator`.

    Yields
    ------
    ListRow
        Of an utterance each, with its id. What ``text`` has beyond the recordings is a row with a fault.

    Raises
    ------
    OSError
        If ``wav.scp`` cannot be read.
    ListError
        If the encoding of a file cannot be told.
    """
    script = _read(folder, SCRIPT)
    texts = {name: (place, rest) for place, name, rest in _read(folder, "text", needed=False)}
    speakers = {name: rest for _, name, rest in _read(folder, "utt2spk", needed=False)}
    segments = os.path.join(folder, "segments")
    parts = _segments(folder, script) if os.path.isfile(segments) else _whole(script)
    seen = set()
    for place, name, entry, fault in parts:
        said = {"id": name, "text": texts.get(name, (None, None))[1]}
        said["speaker"] = speakers.get(name)
        if fault is None and name in seen:
            fault = f"the id {name} stands there twice"
        seen.add(name)
        if fault is not None:
            yield ListRow(place=place, fault=fault, **said)
            continue
        yield make_row(place, said | entry, locate)
    for name, (place, text) in texts.items():
        if name not in seen:
            yield ListRow(place=place, id=name, text=text, fault="transcript without audio")


def _whole(script):
    for place, name, source in script:
        fault = source_fault(source)
        yield place, name, {"path": source}, fault


def _segments(folder, script):
    recordings = {}
    for _, name, source in script:
        recordings.setdefault(name, source)
    for place, name, rest in _read(folder, "segments"):
        cells = rest.split()
        if len(cells) not in (3, 4):
            fault = f"{1 + len(cells)} words, where an id, a recording, a start and an end belong"
            yield place, name, {}, fault
            continue
        recording, start, stop = cells[:3]
        if recording not in recordings:
            yield place, name, {}, f"no recording {recording} in {SCRIPT}"
            continue
        source = recordings[recording]
        # -1 is the end of the recording
        stop = None if stop in ("-1", "-1.0") else stop
        yield place, name, {"path": source, "start": start, "stop": stop}, source_fault(source)


def source_fault(source):
    """Why an entry of ``wav.scp`` is no file; None if it may be one.

    Example
    -------
    >>> source_fault("sph2pipe -f wav a.sph |")
    'a command (sph2pipe -f wav a.sph |), which is never executed; write its output as a file'
    >>> source_fault("raw.ark:1234")
    'a place in an archive (raw.ark:1234); write the recording as a file'
    """
    if source.endswith("|") or source.startswith("|"):
        return f"a command ({source[:100]}), which is never executed; write its output as a file"
    if _OFFSET.search(source) and not os.path.exists(source):
        return f"a place in an archive ({source[:100]}); write the recording as a file"
    if source == "-":
        return "standard input (-), which is no file"
    return None


def _read(folder, name, needed=True):
    """(place, first word, rest) of each line of a file."""
    path = os.path.join(folder, name)
    if not needed and not os.path.isfile(path):
        return []
    found = []
    for number, line in read_lines(path):
        words = line.split(None, 1)
        if words:
            rest = words[1].strip() if len(words) > 1 else ""
            found.append((f"{name}, line {number}", words[0], rest))
    if needed and not found:
        raise ListError(f"{path}: lists nothing")
    return found
