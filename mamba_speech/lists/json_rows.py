"""Rows of JSON lists: an object a line (NeMo, lhotse, Hugging Face), an array of objects, or an object of objects.

lhotse: `lhotse/serialization.py` and `lhotse/cut` of github.com/lhotse-speech/lhotse.
"""

import json

from mamba_speech.lists import lhotse
from mamba_speech.lists.rows import ListError, ListRow, find_columns, make_row

_DECODER = json.JSONDecoder()


def read_json_list(path, lines, locate, needed=("path",)):
    """Rows of a JSON list.

    Arguments
    ---------
    path : str or Path
        Name of the list, for errors and to find lhotse's recordings beside its supervisions.
    lines : iterable of (int, str)
    locate : callable
        See :class:`mamba_speech.lists.places.Locator`.
    needed : iterable of str
        Keys of ``NAMES`` that an object must have.

    Yields
    ------
    ListRow

    Raises
    ------
    ListError
        If an array is not closed or broken, or lhotse's recordings are not beside its supervisions.
    """
    lines = iter(lines)
    number, first = next((one for one in lines if one[1].strip()), (1, ""))
    if _is_whole(first):
        entries = _each_line(_with_first((number, first), lines))
    else:
        text = "\n" * (number - 1) + "\n".join([first, *(line for _, line in lines)])
        entries = _each_value(path, text)
    recordings = None
    for place, entry in entries:
        if isinstance(entry, ValueError):
            yield ListRow(place=place, fault=str(entry))
        elif not isinstance(entry, dict):
            yield ListRow(place=place, fault="not a JSON object")
        elif lhotse.is_supervision(entry):
            if recordings is None:
                recordings = lhotse.read_recordings(path)
            yield lhotse.supervision_row(place, entry, recordings, locate)
        elif lhotse.is_cut(entry):
            yield lhotse.cut_row(place, entry, locate)
        elif lhotse.is_recording(entry):
            yield lhotse.recording_row(place, entry, locate)
        else:
            columns = find_columns(entry)
            missing = [key for key in needed if key not in columns]
            if missing:
                names = ", ".join(str(name)[:40] for name in list(entry)[:20]) or "none"
                fault = f"no key {' and no key '.join(missing)} among {names}"
                yield ListRow(place=place, fault=fault)
                continue
            yield make_row(place, {key: entry[name] for key, name in columns.items()}, locate)


def load_json(text):
    """A JSON value, or the ValueError that says what is wrong with it.

    Example
    -------
    >>> load_json("[" * 100_000)
    ValueError('not a JSON object on one line (nested too deeply)')
    """
    try:
        return json.loads(text)
    except RecursionError:
        return ValueError("not a JSON object on one line (nested too deeply)")
    except ValueError as error:
        return ValueError(f"not a JSON object on one line ({str(error)[:100]})")


def _is_whole(line):
    """Whether a line is a JSON object, or can be no part of a longer value."""
    start = line.lstrip()[:1]
    if start not in ("[", "{"):
        return True
    entry = load_json(line) if start == "{" else None
    if isinstance(entry, dict):
        return not _is_of_objects(entry)
    return start == "{" and not _may_go_on(line)


def _is_of_objects(entry):
    """Whether an object is a whole list on one line: objects by their ids, that have a path."""
    return bool(entry) and all(
        isinstance(one, dict) and "path" in find_columns(one) for one in entry.values()
    )


def _may_go_on(line):
    """Whether a line that is no JSON object may be the first of several."""
    return line.strip() == "{" or line.rstrip().endswith((",", "{", "[", ":"))


def _with_first(first, lines):
    yield first
    yield from lines


def _each_line(lines):
    for number, line in lines:
        if line.strip():
            yield f"line {number}", load_json(line)


def _each_value(path, text):
    """The objects of an array, or of an object by their ids, with the lines at which they begin."""
    position = len(text) - len(text.lstrip())
    is_array = text[position] == "["
    position, line, counted = position + 1, 1, 0
    while True:
        position = _skip(text, position, ",")
        line, counted = line + text.count("\n", counted, position), position
        if position < len(text) and text[position] in "]}":
            return
        try:
            name = None
            if not is_array:
                name, position = _DECODER.raw_decode(text, position)
                position = _skip(text, position, ":")
            entry, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise ListError(
                f"{path}, line {line}: the JSON {'array' if is_array else 'object'} cannot be read from here on "
                f"({str(error)[:100]}); write an object a line, or mend it"
            ) from error
        if isinstance(entry, dict) and name is not None:
            entry = {"id": name} | entry
        yield f"line {line}", entry


def _skip(text, position, sign):
    while position < len(text) and (text[position].isspace() or text[position] == sign):
        position += 1
    return position
