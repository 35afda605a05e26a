"""Checking utterances before they enter a manifest, and writing the manifests.

Every corpus preparation gives its candidates to `verify`, which opens each audio file in parallel,
keeps the sound ones and says of the others why not.
"""

import json
import logging
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from mamba_speech.files import read_json, write_csv

logger = logging.getLogger(__name__)

COLUMNS = ("ID", "duration", "wav", "spk_id", "wrd")
SKIPPED_COLUMNS = ("id", "path", "reason")

# SpeechBrain replaces `$name` anywhere in a CSV manifest and fails where it knows no such name.
VARIABLE = re.compile(r"\$[\w.]")


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
        The words; None if the corpus has the audio alone.
    """

    id: str
    path: Path | None
    speaker: str
    text: str | None


@dataclass(frozen=True)
class Skipped:
    """An utterance, or what else a corpus has, that was left out, and why."""

    id: str
    path: str
    reason: str


def verify(candidates, description, seen=None, workers=None):
    """Check candidates, with a progress bar.

    Arguments
    ---------
    candidates : list of Candidate
    description : str
        What the progress bar calls them.
    seen : set of str, optional
        Ids already taken, to which those of the kept utterances are added.
    workers : int, optional
        Files opened at a time; by default twice the number of processors, at most 16.

    Returns
    -------
    rows : list of dict
        The kept utterances in the order given, with the keys `COLUMNS`; duration in seconds.
    skipped : list of Skipped
        The others: no audio, unreadable or truncated audio, no samples or such as are no finite
        numbers, no or an empty transcript, an id that was there before, or a `$` that a manifest
        cannot hold.

    Example
    -------
    >>> rows, skipped = verify([Candidate("a", Path("nowhere.flac"), "1", "HELLO")], "example")
    >>> rows, skipped[0].reason
    ([], 'audio file not found')
    """
    seen = set() if seen is None else seen
    workers = workers or min(2 * (os.cpu_count() or 1), 16)
    rows, skipped = [], []
    with ThreadPoolExecutor(workers) as threads:
        # Only so many at once: a list of futures for a whole corpus would outgrow the corpus.
        checked = _map_in_blocks(threads, measure, [one.path for one in candidates])
        progress = tqdm(
            zip(candidates, checked, strict=True),
            total=len(candidates),
            desc=f"checking {description}",
            unit="utterance",
            mininterval=0.5,
        )
        for one, (duration, reason) in progress:
            reason = find_fault(one, seen) or reason
            if reason:
                skipped.append(Skipped(one.id, str(one.path or ""), reason))
                continue
            seen.add(one.id)
            values = (one.id, duration, str(one.path), one.speaker, one.text)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows, skipped


def find_fault(candidate, seen):
    """What is wrong with a candidate apart from its audio; None if nothing is."""
    if candidate.text is None:
        return "no transcript"
    if not candidate.text:
        return "empty transcript"
    if candidate.id in seen:
        return "duplicate id"
    for value in (candidate.id, str(candidate.path), candidate.speaker, candidate.text):
        if VARIABLE.search(value):
            return "a '$' before a letter or digit, which SpeechBrain takes for a variable"
    return None


def measure(path):
    """Duration of an audio file by `inspect`.

    Arguments
    ---------
    path : Path or None

    Returns
    -------
    duration : float
        Seconds; 0 if there is something wrong.
    reason : str or None
        What is wrong with it.
    """
    if path is None:
        return 0.0, "transcript without audio"
    frames, rate, reason = inspect(path)
    return (0.0 if reason else round(frames / rate, 6)), reason


def inspect(path):
    """Open an audio file and read its end; all of it if it holds floating-point numbers.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    frames, sample_rate : int
        0 and 1 if there is something wrong.
    reason : str or None
        What is wrong with it.
    """
    if not os.path.isfile(path):
        return 0, 1, "audio file not found"
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames <= 0:
                return 0, 1, "no samples"
            # The header of a truncated file still gives the whole length.
            last = min(file.frames, 16)
            file.seek(file.frames - last)
            if len(file.read(last)) < last:
                return 0, 1, "truncated audio"
            # other formats hold integers, and need not be read
            if file.subtype in ("FLOAT", "DOUBLE") and not _is_finite(file):
                return 0, 1, "samples that are not finite numbers"
            return file.frames, file.samplerate, None
    except (soundfile.SoundFileError, OSError):
        return 0, 1, "unreadable audio" if os.path.getsize(path) else "empty audio file"


def _is_finite(file):
    """Whether an open file holds numbers alone, read a minute at a time."""
    file.seek(0)
    blocks = file.blocks(60 * file.samplerate, dtype="float32")
    return all(np.isfinite(block).all() for block in blocks)


def normalise_text(text):
    """Put one space between words and none at the ends; nothing else changes."""
    return " ".join(text.split())


def write_manifest(path, rows):
    """Write rows with the columns `ID,duration,wav,spk_id,wrd`, which SpeechBrain reads."""
    write_csv(path, COLUMNS, rows)


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
    write_csv(path, SKIPPED_COLUMNS, [vars(one) for one in skipped])
    reasons = Counter(one.reason for one in skipped)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
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
    try:
        found = read_json(path)
    except (FileNotFoundError, ValueError):
        return False
    return found == json.loads(json.dumps(record))


def _map_in_blocks(threads, function, items, size=4096):
    for start in range(0, len(items), size):
        yield from threads.map(function, items[start : start + size])
