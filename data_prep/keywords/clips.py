"""Checking the clips and noise recordings of a keyword corpus, and writing its manifests.

What the preparations of keyword corpora share: bad files are listed and counted, long clips cut to their
loudest part, silence cropped from noise, manifests written under a temporary name first.
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data_prep.inspection import UNREADABLE, inspect
from data_prep.verify import (
    FULL,
    Skipped,
    check_utterances,
    write_skipped,
)
from mamba_speech.audio import AudioError, open_audio
from mamba_speech.files import write_csv, write_json

logger = logging.getLogger(__name__)

COLUMNS = ("ID", "duration", "wav", "start", "stop", "label", "speaker", "words")
NOISE_FOLDER = "_background_noise_"
OTHER_SPEECH = "_other_speech_"
SILENCE = "_silence_"
UNKNOWN = "_unknown_"
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aiff", ".aif", ".webm")
USUAL_RATE = 16000

# Which part of every noise recording each split may crop its silence from.
NOISE_PARTS = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}


def check_clips(candidates, split, save_folder, seen, clip_seconds, verify=FULL):
    """Check the clips of a split, list the bad ones, and shorten the long ones.

    Arguments
    ---------
    candidates : list of Candidate
    split : str
    save_folder : Path
        Where `skipped_<split>.csv` goes.
    seen : set of str
        Ids already taken; the ids of the kept clips are added.
    clip_seconds : float or None
    verify : str
        See `data_prep.verify.inspect`.

    Returns
    -------
    rows : list of dict
        With the keys `COLUMNS`.
    skipped : int
        How many were left out.

    Raises
    ------
    ValueError
        If no clip is left.
    """
    found, skipped = check_utterances(candidates, split, seen, verify=verify)
    with ThreadPoolExecutor(4) as threads:
        spans = list(threads.map(lambda row: find_span(row["wav"], clip_seconds), found))
    # what only a reading of the whole file shows
    skipped += [
        Skipped(row["ID"], row["wav"], UNREADABLE)
        for row, span in zip(found, spans, strict=True)
        if span is None
    ]
    found = [row for row, span in zip(found, spans, strict=True) if span is not None]
    spans = [span for span in spans if span is not None]
    skipped_list = save_folder / f"skipped_{split}.csv"
    write_skipped(skipped_list, skipped, len(candidates), f"the split {split}", things="clips")
    if not found:
        reason = f"see {skipped_list}" if skipped else "nobody's clips fall into it"
        raise ValueError(f"the split {split} has no usable clip: {reason}")
    rows = []
    for row, (start, stop, rate) in zip(found, spans, strict=True):
        values = (row["ID"], round((stop - start) / rate, 6), row["wav"], start, stop)
        values += (row["wrd"], row["spk_id"], row["wrd"])
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    long = sum(
        row["duration"] > one["duration"] + 1e-3 for row, one in zip(found, rows, strict=True)
    )
    short = sum(one["duration"] < (clip_seconds or 0) for one in rows)
    rates = Counter(rate for _, _, rate in spans if rate != USUAL_RATE)
    logger.info("%s: %d clips, of which %d are short and to be padded", split, len(rows), short)
    if long:
        logger.warning("%s: %d long clips are cut to their loudest %s s", split, long, clip_seconds)
    for rate, count in rates.items():
        logger.warning("%s: %d clips are at %d Hz and to be resampled", split, count, rate)
    return rows, len(skipped)


def find_span(path, seconds):
    """First sample, end and sample rate of the loudest part of a recording.

    Arguments
    ---------
    path : str or Path
    seconds : float or None
        Length of the part, found to 10 ms; a shorter recording, or any with None, is kept whole.

    Returns
    -------
    (start, stop, sample_rate) : (int, int, int) or None
        None if the recording cannot be read.
    """
    try:
        with open_audio(path) as file:
            rate = file.rate
            frames = file.frames or file.check_end()
            length = frames if seconds is None else round(seconds * rate)
            if frames <= length:
                return 0, frames, rate
            hop = max(rate // 100, 1)
            energy = [float(np.square(block).sum()) for block in file.blocks(frames=hop)]
    except (AudioError, OSError, MemoryError):
        return None
    total = np.concatenate([[0.0], np.cumsum(energy)])
    width = -(-length // hop)
    loudest = int(np.argmax(total[width:] - total[:-width])) * hop
    start = min(loudest, frames - length)
    return start, start + length, rate


def check_noise(paths, save_folder, seconds, verify=FULL):
    """Measure noise recordings and list the bad ones in `skipped_noise.csv`.

    Returns
    -------
    noise : list of (Path, int, int)
        Recording, samples, sample rate.
    skipped : int
    """
    noise, skipped = [], []
    for path in paths:
        frames, rate, reason = inspect(path, verify)
        if reason is None and frames < seconds * rate:
            reason = f"shorter than {seconds} s"
        if reason is None:
            noise.append((path, frames, rate))
        else:
            skipped.append(Skipped(path.stem, str(path), reason))
    listed = save_folder / "skipped_noise.csv"
    write_skipped(listed, skipped, len(paths), NOISE_FOLDER, things="recordings")
    return noise, len(skipped)


def crop_silence(noise, split, count, seconds, random):
    """Draw crops from this split's part of the noise recordings.

    A part that is shorter than the crop gives the crop nearest to it.

    Raises
    ------
    ValueError
        If there is no usable noise.
    """
    if not noise:
        raise ValueError(
            f"no noise recording is usable for {SILENCE}; see skipped_noise.csv beside the manifests"
        )
    rows = []
    for index in range(count):
        path, frames, rate = noise[random.integers(len(noise))]
        length = round(seconds * rate)
        first, last = (int(part * frames) for part in NOISE_PARTS[split])
        start = min(int(random.integers(first, max(last - length, first) + 1)), frames - length)
        values = (f"{SILENCE}_{split}_{index:05d}", seconds, str(path), start, start + length)
        rows.append(dict(zip(COLUMNS, (*values, SILENCE, path.stem, ""), strict=True)))
    return rows


def warn_of_gaps(rows, labels):
    """Warn of classes without a clip in a split, and of speakers who are in two."""
    for name, own in rows.items():
        present = {row["label"] for row in own}
        missing = [label for label in labels if label not in present]
        if missing:
            logger.warning("%s has no clip of %s", name, ", ".join(missing))
        others = {row["speaker"] for key in rows if key != name for row in rows[key]}
        shared = {row["speaker"] for row in own if row["label"] != SILENCE} & others
        if shared:
            logger.warning("%d speakers of %s are in another split too", len(shared), name)


def write_all(prepared, rows, labels, noise):
    """Write manifests and lists.

    Arguments
    ---------
    prepared : dict of str to Path
        As `manifest_paths` gives them.
    rows : dict of str to list of dict
    labels : list of str
    noise : list of Path
    """
    lists = {"labels": labels, "noise": [str(path) for path in noise]}
    for name, path in prepared.items():
        if name in lists:
            write_json(path, lists[name])
        else:
            write_csv(path, COLUMNS, rows[name])
