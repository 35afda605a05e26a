"""Rows of users' lists: one recording or a part of it, with its text; or a row that cannot be used, with the reason."""

import math
from dataclasses import dataclass
from pathlib import Path

# What a list may call its columns, in lower case. The first name is the one that we advise.
NAMES = {
    "path": (
        "path",
        "wav",
        "audio_filepath",
        "audio_path",
        "audio",
        "file",
        "file_name",
        "filename",
        "filepath",
        "wav_filename",
    ),
    "text": ("text", "wrd", "transcript", "transcription", "sentence", "words"),
    "speaker": ("speaker", "spk_id", "speaker_id", "client_id"),
    "label": ("label", "keyword", "command", "word"),
    "id": ("id", "utt_id", "utterance_id"),
    "start": ("start", "start_time", "begin", "offset"),
    "stop": ("stop", "end", "stop_time", "end_time"),
    "duration": ("duration",),
}
# Characters of a cell, as the csv module has it: more is no text, but a list that lost its line ends.
LONGEST_CELL = 131_072
# Seconds by which a segment may pass its file's end, since lists round: the default of Kaldi's extract-segments.
OVERSHOOT = 0.5
# Seconds within which a duration is the whole file's.
ROUNDING = 0.05


class ListError(ValueError):
    """A list that cannot be read at all; the message names it, and the line where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRow:
    """One row of a list.

    Attributes
    ----------
    place : str
        Place of the row, such as ``line 3``; of a Kaldi folder with the file, as in ``segments, line 3``.
    path : Path or None
        Recording. Relative paths are already joined to a folder.
    name : str or None
        The recording as the list names it.
    text, speaker, label, id : str or None
        None where the list does not say. A label is the word of a clip.
    start, stop : float or None
        Part of the recording, in seconds. None stands for its beginning and its end.
    in_samples : bool
        Whether start and stop count samples of the file, as in manifests of this project and of SpeechBrain.
    fault : str or None
        Reason why the row cannot be used. Some of the other attributes may be set all the same.
    """

    place: str
    path: Path | None = None
    name: str | None = None
    text: str | None = None
    speaker: str | None = None
    label: str | None = None
    id: str | None = None
    start: float | None = None
    stop: float | None = None
    in_samples: bool = False
    fault: str | None = None

    @property
    def is_segment(self):
        """Whether the row means a part of its file; a part may turn out to be the whole."""
        return self.start is not None or self.stop is not None

    def samples(self, rate, frames):
        """The part in samples of the file.

        Arguments
        ---------
        rate : int
            Samples a second of the file.
        frames : int or None
            Samples of the file; None where nobody knows.

        Returns
        -------
        (int, int) or None
            First sample and end; None for the whole file.

        Raises
        ------
        ValueError
            If the part lies outside of the file; the sentence does not name the file.

        Example
        -------
        >>> row = ListRow(place="line 2", path=Path("a.wav"), start=0.5, stop=1.0)
        >>> row.samples(16000, 32000), row.samples(8000, 8100)
        ((8000, 16000), (4000, 8000))
        >>> row.samples(8000, 3000)
        Traceback (most recent call last):
            ...
        ValueError: a segment from 0.5 s to 1 s of a file of 0.375 s
        """
        if not self.is_segment:
            return None
        scale = 1 if self.in_samples else rate
        first = round((self.start or 0) * scale)
        last = frames if self.stop is None else round(self.stop * scale)
        if frames is not None:
            if first >= frames or last > frames + OVERSHOOT * rate:
                raise ValueError(
                    f"a segment from {first / rate:g} s to {last / rate:g} s of a file of {frames / rate:g} s"
                )
            last = min(last, frames)
            if not first and frames - last <= (0 if self.in_samples else ROUNDING * rate):
                return None
        if last is not None and last <= first:
            raise ValueError(f"a segment of no samples at {first / rate:g} s")
        return first, last


def find_columns(header):
    """Which columns of a list hold which of ``NAMES``.

    Arguments
    ---------
    header : iterable of str
        Upper case and outer spaces do not matter.

    Returns
    -------
    dict of str: str
        From the keys of ``NAMES`` to the list's own names.

    Example
    -------
    >>> find_columns(["ID", "wav", "wrd", "client_id"])
    {'path': 'wav', 'text': 'wrd', 'speaker': 'client_id', 'id': 'ID'}
    """
    known = {}
    for column in header:
        known.setdefault(column.strip().lower(), column)
    found = {key: [known[name] for name in names if name in known] for key, names in NAMES.items()}
    return {key: columns[0] for key, columns in found.items() if columns}


def is_own_manifest(header):
    """Whether a list is a manifest of this project or of SpeechBrain, whose starts and stops are samples.

    Example
    -------
    >>> is_own_manifest(["ID", "duration", "wav", "wrd"]), is_own_manifest(["path", "duration"])
    (True, False)
    """
    return {"ID", "duration", "wav"} <= set(header)


def make_row(place, cells, locate, own_manifest=False, comma=False):
    """A row of what a list says.

    Arguments
    ---------
    place : str
    cells : dict
        From keys of ``NAMES`` to texts, numbers or None.
    locate : callable
        From a path of the list to the file that is meant; see :func:`mamba_speech.lists.places.Locator`.
    own_manifest : bool
        See :func:`is_own_manifest`. The duration is then for information.
    comma : bool
        Whether numbers may have a decimal comma.

    Returns
    -------
    ListRow

    Example
    -------
    >>> make_row("line 2", {"path": "a.wav", "start": "0.5s"}, Path).fault
    "start '0.5s' is no number of seconds"
    """
    said = {}
    try:
        for key in ("id", "speaker", "label", "text"):
            said[key] = _text(key, cells.get(key))
        said["name"] = _text("path", cells.get("path"))
        said["path"] = _path(said["name"], locate)
        span = _span(cells, own_manifest, comma)
        return ListRow(place=place, **said, **span, in_samples=own_manifest)
    except ValueError as error:
        return ListRow(place=place, **said, fault=str(error))


def _text(key, value):
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        value = str(value)
    elif not isinstance(value, str):
        raise ValueError(f"{key} is no text, but holds further JSON")  # noqa: TRY004 - a fault of the list
    if len(value) > LONGEST_CELL:
        raise ValueError(f"{key} has more than {LONGEST_CELL:,} characters")
    if "\0" in value:
        raise ValueError(f"{key} holds a zero byte")
    return value.strip()


def _path(name, locate):
    if not name:
        raise ValueError("the path is empty")
    if not name.strip("./\\"):
        raise ValueError(f"the path {name} is a folder")
    return locate(name)


def _span(cells, own_manifest, comma):
    start = _number("start", cells.get("start"), comma, own_manifest)
    stop = _number("stop", cells.get("stop"), comma, own_manifest)
    if not own_manifest and stop is None:
        duration = _number("duration", cells.get("duration"), comma)
        if duration is not None and duration <= 0:
            raise ValueError(f"the duration {duration:g} is not above 0")
        stop = None if duration is None else (start or 0) + duration
    if start is not None and start < 0:
        raise ValueError(f"start {start:g} is negative")
    if stop is not None and stop <= (start or 0):
        raise ValueError(f"stop {stop:g} is not after start {start or 0:g}")
    # a start of 0 without a stop is the whole file
    return {"start": start or None if stop is None else start or 0.0, "stop": stop}


def _number(key, value, comma, whole=False):
    if value is None or isinstance(value, str) and not value.strip():
        return None
    try:
        text = value.replace(",", ".") if comma and isinstance(value, str) else value
        # Python takes 1_000 for a number, and JSON's true for 1
        number = math.nan if isinstance(value, bool) or "_" in str(text) else float(text)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or whole and number != int(number):
        unit = "samples" if whole else "seconds"
        point = "; write a point, and no comma" if isinstance(value, str) and "," in value else ""
        raise ValueError(f"{key} {str(value)[:40]!r} is no number of {unit}{point}")
    return number
