"""Rows of lhotse's lists: cuts, supervisions with the recordings beside them, and recordings.

Source: `lhotse/cut/data.py`, `lhotse/audio/recording.py` and `lhotse/supervision.py` of lhotse-speech/lhotse.
A cut is a part of a recording, with the supervisions, the texts, that lie in it.
"""

import json
from pathlib import Path

from mamba_speech.lists.encodings import read_lines
from mamba_speech.lists.rows import ListError, ListRow, make_row


def is_cut(entry):
    """Whether an object of a list is a cut of lhotse, of any kind."""
    kind = str(entry.get("type", ""))
    return kind.endswith("Cut") or {"recording", "supervisions"} <= set(entry)


def is_supervision(entry):
    """Whether an object of a list is a supervision of lhotse, whose recording is known by its id."""
    return {"recording_id", "start", "duration"} <= set(entry)


def is_recording(entry):
    """Whether an object of a list is a recording of lhotse."""
    return {"id", "sources", "sampling_rate"} <= set(entry)


def cut_row(place, entry, locate):
    """The row of a cut: its part of the recording, and the texts of its supervisions in the order of time."""
    try:
        kind = str(entry.get("type", "MonoCut"))
        if kind not in ("MonoCut", "MultiCut", "Cut"):
            raise ValueError(f"a {kind}, which is no part of one recording")
        source = _source(entry.get("recording"), entry.get("channel"))
        spoken = entry.get("supervisions") or []
        if not isinstance(spoken, list) or not all(isinstance(one, dict) for one in spoken):
            raise ValueError("supervisions is no list of objects")
        spoken = sorted(spoken, key=_start)
        texts = [str(one["text"]) for one in spoken if one.get("text")]
        speakers = list(dict.fromkeys(one["speaker"] for one in spoken if one.get("speaker")))
    except (TypeError, ValueError) as error:
        return _faulty(place, entry, error)
    said = {"text": " ".join(texts) if texts else None, "path": source}
    said |= {key: entry.get(key) for key in ("id", "start", "duration")}
    # a cut of two speakers is of neither
    said["speaker"] = speakers[0] if len(speakers) == 1 else None
    return make_row(place, said, locate)


def supervision_row(place, entry, recordings, locate):
    """The row of a supervision, whose recording is among ``recordings``."""
    try:
        name = entry["recording_id"]
        if not isinstance(name, str) or name not in recordings:
            raise ValueError(f"no recording {str(name)[:80]} in lhotse's list of recordings")
        source = _source(recordings[name], entry.get("channel"))
    except ValueError as error:
        return _faulty(place, entry, error)
    keys = ("id", "start", "duration", "text", "speaker")
    return make_row(place, {"path": source} | {key: entry.get(key) for key in keys}, locate)


def recording_row(place, entry, locate):
    """The row of a whole recording."""
    try:
        return make_row(place, {"path": _source(entry), "id": entry["id"]}, locate)
    except ValueError as error:
        return _faulty(place, entry, error)


def read_recordings(path):
    """Recordings by id, from lhotse's list beside its list of supervisions.

    Arguments
    ---------
    path : str or Path
        List of supervisions, with that word in its name: ``corpus_supervisions_train.jsonl.gz``.

    Raises
    ------
    ListError
        If there is no such list.
    """
    path = Path(path)
    beside = path.with_name(path.name.replace("supervisions", "recordings"))
    if beside == path or not beside.is_file():
        raise ListError(
            f"{path}: lhotse's supervisions name no files; put the list of recordings beside it, under the same name "
            "with recordings in place of supervisions"
        )
    found = {}
    for _, line in read_lines(beside):
        try:
            entry = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            found[entry["id"]] = entry
    return found


def _source(recording, channel=None):
    """The file of a recording, whose channel is the only one."""
    listed = recording.get("sources") if isinstance(recording, dict) else None
    if listed is None:
        raise ValueError("holds no recording, but features alone")
    if recording.get("transforms"):
        raise ValueError("lhotse's transforms of a recording are not applied")
    sources = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if len(sources) != 1:
        raise ValueError(f"a recording of {len(sources)} sources")
    (source,) = sources
    kind = source.get("type")
    if kind != "file":
        told = ", which is never executed" if kind == "command" else ""
        raise ValueError(f"a recording from a {str(kind)[:40]} and not from a file{told}")
    channels = recording.get("channel_ids") or source.get("channels") or [0]
    if isinstance(channel, int) and isinstance(channels, list) and len(channels) > 1:
        raise ValueError(
            f"channel {channel} of a file with {len(channels)} channels; write it as a file of its own"
        )
    return source.get("source")


def _start(supervision):
    start = supervision.get("start", 0)
    return start if isinstance(start, int | float) else 0


def _faulty(place, entry, error):
    name = entry.get("id")
    return ListRow(place=place, id=name if isinstance(name, str) else None, fault=str(error))
