"""Checking utterances before they enter a manifest, and writing the manifests.

Every corpus preparation gives its candidates to `check_utterances`, which reads the audio files in
parallel, keeps the sound ones and says of the others why not.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_prep.inspection import FULL, HEADER, inspect, tell_oddities
from mamba_speech.audio.names import is_utf8, printable
from mamba_speech.files import read_csv, read_json, write_csv
from mamba_speech.text import HAS_DIGITS

logger = logging.getLogger(__name__)

# start and stop are samples of the file, empty where an utterance is a file of its own
COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id", "wrd")
SKIPPED_COLUMNS = ("id", "path", "reason")

LINE_BREAK = re.compile(r"[\r\n]")

NO_TRANSCRIPT, EMPTY_TRANSCRIPT = "no transcript", "empty transcript"
NO_AUDIO, DUPLICATE = "transcript without audio", "duplicate id"
BREAK_INSIDE = "a line break, which no manifest can hold"
NOT_UTF8 = "a name that is not UTF-8, so that no manifest can hold it"
# Reasons that no change of the recording itself mends.
FIXED_REASONS = (
    NO_TRANSCRIPT,
    EMPTY_TRANSCRIPT,
    NO_AUDIO,
    DUPLICATE,
    BREAK_INSIDE,
    HAS_DIGITS,
    NOT_UTF8,
)
# Reasons that a warning names.
MOST_REASONS = 8
# How a reason begins that a line of a list gives; it lasts as long as the list and its recordings.
OF_A_LINE = re.compile(r"([\w.]+, )?line \d+: ")


@dataclass(frozen=True)
class Candidate:
    """An utterance that a corpus claims to have.

    Arguments
    ---------
    id : str
    path : Path or None
        The audio; None if the corpus has a transcript alone.
    speaker : str
    text : str or None
        The words as the corpus has them; None if it has the audio alone.
    part : callable, optional
        Function from the rate and the samples of the file to the first sample and the end of the
        utterance, or to None for the whole file. It raises ValueError for a part outside of the file.
    fault : str or None
        Reason that was found before its audio was read.
    """

    id: str
    path: Path | None
    speaker: str
    text: str | None
    part: Callable | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Skipped:
    """An utterance, or what else a corpus has, that was left out, and why."""

    id: str
    path: str
    reason: str


def check_verify(verify):
    """Refuse a way to verify recordings that there is not, with a ValueError."""
    if verify not in (FULL, HEADER):
        raise ValueError(f"verify must be {FULL} or {HEADER}, not {verify!r}")


def check_utterances(candidates, description, seen=None, workers=None, verify=FULL, texts=None):
    """Check candidates, with a progress bar.

    Arguments
    ---------
    candidates : list of Candidate
    description : str
        What the progress bar calls them.
    seen : set of str, optional
        Ids already taken; the ids of the kept utterances are added.
    workers : int, optional
        Files opened at a time; by default twice the number of processors, at most 16.
    verify : str
        How much of a recording is read; see `inspect`.
    texts : TextChanges, optional
        Policy of the texts, which counts the changes in the kept ones. Without it texts stay as they are.

    Returns
    -------
    rows : list of dict
        The kept utterances in the order given, with the keys `COLUMNS`; duration in seconds, the
        text under the policy.
    skipped : list of Skipped
        The others: no audio, unreadable or truncated audio, no samples or such as are no finite
        numbers, no or an empty transcript, digits that the policy leaves out, an id that was there
        before, or a line break or a name that is not UTF-8, which a manifest cannot hold.

    Example
    -------
    >>> rows, skipped = check_utterances([Candidate("a", Path("nowhere.flac"), "1", "HELLO")], "example")
    >>> rows, skipped[0].reason
    ([], 'audio file not found')
    """
    seen = set() if seen is None else seen
    workers = workers or min(2 * (os.cpu_count() or 1), 16)
    rows, skipped, odd = [], [], []
    with ThreadPoolExecutor(workers) as threads:
        checked = _inspect_each(threads, partial(inspect, verify=verify, odd=odd), candidates)
        progress = tqdm(
            zip(candidates, checked, strict=True),
            total=len(candidates),
            desc=f"checking {description}",
            unit="utterance",
            mininterval=0.5,
        )
        for one, found in progress:
            row, reason = _check_one(one, found, seen, texts)
            if reason:
                skipped.append(Skipped(one.id, str(one.path or ""), reason))
            else:
                rows.append(row)
    tell_oddities(odd, description)
    return rows, skipped


def _check_one(one, found, seen, texts):
    """The row of a candidate whose file has these samples and rate, or what is wrong; one of the two is None."""
    frames, rate, reason = found
    changes = {}
    if texts is not None and one.text is not None:
        text, changes = texts.policy.apply(one.text)
        one, reason = replace(one, text=text), texts.policy.fault(text) or reason
    reason = find_fault(one, seen) or reason
    if reason:
        return None, reason
    try:
        part = one.part(rate, frames) if one.part else None
    except ValueError as error:
        return None, str(error)
    seen.add(one.id)
    if texts is not None:
        texts.add(one.id, changes)
    duration = round((part[1] - part[0] if part else frames) / rate, 6)
    values = (one.id, duration, str(one.path), *(part or ("", "")), one.speaker, one.text)
    return dict(zip(COLUMNS, values, strict=True)), None


def find_fault(candidate, seen):
    """What is wrong with a candidate apart from its audio; None if nothing is."""
    if candidate.fault is not None:
        return candidate.fault
    if candidate.text is None:
        return NO_TRANSCRIPT
    if not candidate.text:
        return EMPTY_TRANSCRIPT
    if candidate.id in seen:
        return DUPLICATE
    for value in (candidate.id, str(candidate.path), candidate.speaker, candidate.text):
        if LINE_BREAK.search(value):
            return BREAK_INSIDE
        if not is_utf8(value):
            return NOT_UTF8
    return None


def measure(path, verify=FULL, odd=None):
    """Duration of an audio file by `inspect`.

    Arguments
    ---------
    path : Path or None
    verify : str
        See `inspect`.
    odd : list, optional
        See `inspect`.

    Returns
    -------
    duration : float
        Seconds; 0 if there is something wrong.
    reason : str or None
        What is wrong with it.
    """
    if path is None:
        return 0.0, NO_AUDIO
    frames, rate, reason = inspect(path, verify, odd)
    return (0.0 if reason else round(frames / rate, 6)), reason


def write_manifest(path, rows):
    """Write rows with the columns `COLUMNS`."""
    # most corpora have files of whole utterances alone
    write_csv(path, COLUMNS, ({"start": "", "stop": ""} | row for row in rows))


def write_skipped(path, skipped, total, description, things="utterances"):
    """Write the list of what was skipped and warn with its number, by reason.

    Where nothing was skipped, a list of an earlier run is removed.

    Arguments
    ---------
    path : str or Path
    skipped : list of Skipped
    total : int
        How many there were, with the skipped ones.
    description : str
        What they belong to, as "of" begins it: a split, a folder, a list.
    things : str
        What they are called, in the plural.
    """
    path = Path(path)
    if not skipped:
        path.unlink(missing_ok=True)
        return
    rows = (
        [LINE_BREAK.sub("?", printable(cell)) for cell in vars(one).values()] for one in skipped
    )
    write_csv(path, SKIPPED_COLUMNS, rows)
    reasons = Counter(OF_A_LINE.sub("", one.reason) for one in skipped)
    named = [f"{count} {reason}" for reason, count in reasons.most_common(MOST_REASONS)]
    if len(reasons) > MOST_REASONS:
        named.append(f"{len(reasons) - MOST_REASONS} other reasons")
    counts = ", ".join(named)
    logger.warning(
        "%d of %d %s of %s are left out (%s); the list is in %s",
        len(skipped),
        total,
        things,
        description,
        counts,
        path,
    )


def is_recorded(path, record):
    """Whether an earlier run left exactly this record; a damaged record counts as none."""
    return _read_record(path) == json.loads(json.dumps(record))


def is_prepared(path, record, skipped_lists=()):
    """Whether an earlier run's record still holds: it read as fully, and the files it left out are still bad.

    Arguments
    ---------
    path : str or Path
        The record of the earlier run.
    record : dict
        With `verify`, and with `skipped` 0.
    skipped_lists : iterable of Path
        Lists of what the earlier run left out.

    Returns
    -------
    prepared : bool
    """
    found = _read_record(path)
    if not isinstance(found, dict):
        return False
    skipped, verify = found.get("skipped", 0), record["verify"]
    if verify == HEADER and found.get("verify") == FULL:
        verify = FULL
    if found != json.loads(json.dumps(record | {"skipped": skipped, "verify": verify})):
        return False
    return not skipped or all(still_bad(one, verify) for one in skipped_lists)


def still_bad(skipped_list, verify, fixed=FIXED_REASONS):
    """Whether all that an earlier run left out is still bad; a damaged list tells nothing.

    Arguments
    ---------
    skipped_list : str or Path
        As `write_skipped` writes it; nothing was left out where it is missing.
    verify : str
        See `inspect`.
    fixed : iterable of str
        Reasons that last as long as the corpus' lists and names.

    Returns
    -------
    bad : bool
    """
    try:
        rows = [row for _, row in read_csv(skipped_list, SKIPPED_COLUMNS)[1]]
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    rows = [
        row for row in rows if row["reason"] not in fixed and not OF_A_LINE.match(row["reason"])
    ]
    return all(inspect(row["path"], verify)[2] == row["reason"] for row in rows)


def _read_record(path):
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


def _inspect_each(threads, read, candidates, size=4096):
    """What `read` says of each candidate's file; a file of many utterances is read once for a block of them."""
    known = {None: (0, 1, NO_AUDIO)}
    # Only so many at once: a list of futures for a whole corpus would outgrow the corpus.
    for start in range(0, len(candidates), size):
        block = [None if one.fault else one.path for one in candidates[start : start + size]]
        paths = dict.fromkeys(block)
        known = {path: known[path] for path in (*paths, None) if path in known}
        found = threads.map(read, [path for path in paths if path not in known])
        for path in block:
            if path not in known:
                known[path] = next(found)
            yield known[path]
