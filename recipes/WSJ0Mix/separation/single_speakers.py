"""Recordings of single speakers for dynamic mixing: which can be used, and who speaks in each."""

import logging
import os
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speechbrain.utils.distributed import if_main_process
from tqdm import tqdm

from data_prep.inspection import CUT, HEADER, examine
from mamba_speech.audio import walk_files

logger = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac")
# shorter recordings are not drawn: a mixture of one would teach nothing
SHORTEST_SECONDS = 0.5
# 011a0101.wav of speaker 011: WSJ0's names, with or without the peak that its published resampling appends
WSJ0_NAME = re.compile(r"(\d[0-9a-z]{2})[a-z][0-9a-z]{4}(_peak_.*)?")
LIBRISPEECH_NAME = re.compile(r"(\d+)-(\d+)-\d+")


@dataclass(frozen=True)
class SpeakerRecording:
    """A file of one speaker, and its length in samples."""

    path: str
    frames: int


def find_speakers(base_folder, sample_rate):
    """Recordings by speaker.

    Arguments
    ---------
    base_folder : Path
    sample_rate : int
        Hz, that every file must have.

    Returns
    -------
    speakers : dict of str to list of SpeakerRecording
        Sorted by name, as the recordings are.
    skipped : dict of str to str
        Files that cannot be used, with the reason: unreadable, stereo, shorter than half a second, or one of a few
        of another rate or without a speaker.

    Raises
    ------
    FileNotFoundError, ValueError
        As `DynamicMixingDataset`.
    """
    if not base_folder.is_dir():
        raise FileNotFoundError(
            f"{base_folder}: no such folder; give --base_folder_dm a folder of single speakers' recordings"
        )
    paths = [str(path) for path in walk_files(base_folder, SUFFIXES)]
    if not paths:
        raise FileNotFoundError(f"{base_folder}: holds no {' or '.join(SUFFIXES)} file to mix")
    speakers, skipped, other_rates, nameless = {}, {}, {}, []
    for path, found in zip(paths, _read_headers(paths), strict=True):
        reason, rate, speaker = _why_skipped(found), found.rate, speaker_of(path, base_folder)
        if reason:
            skipped[path] = reason
        elif rate != sample_rate:
            skipped[path] = f"sampled at {rate} Hz, not {sample_rate}"
            other_rates[path] = rate
        elif speaker is None:
            skipped[path] = "no folder or name that tells its speaker"
            nameless.append(path)
        else:
            speakers.setdefault(speaker, []).append(SpeakerRecording(path, found.frames))
    kept = sum(map(len, speakers.values()))
    _refuse_most(other_rates, nameless, kept, base_folder, sample_rate)
    if skipped:
        first = next(iter(skipped))
        left_out = (
            f"{len(skipped)} of {len(paths)} recordings of {base_folder} cannot be mixed, for example {first} "
            f"({skipped[first]})"
        )
        if not speakers:
            raise ValueError(left_out)
        logger.warning("%s", left_out)
    return dict(sorted(speakers.items())), skipped


def _refuse_most(other_rates, nameless, kept, base_folder, sample_rate):
    """Refuse a folder in which more recordings are of another rate, or of no speaker, than can be used."""
    if len(other_rates) > kept:
        path, rate = next(iter(other_rates.items()))
        raise ValueError(
            f"{path}: sampled at {rate} Hz, not {sample_rate}: run python -m data_prep.resample_speech "
            f"{shlex.quote(str(base_folder))} NEW_FOLDER --sample_rate {sample_rate} and give "
            "--base_folder_dm NEW_FOLDER"
        )
    if len(nameless) > kept:
        raise ValueError(
            f"{nameless[0]}: lies directly in --base_folder_dm, so its speaker is not known: put every speaker's "
            "recordings into a folder of their own"
        )


def _read_headers(paths):
    with ThreadPoolExecutor(min(2 * (os.cpu_count() or 1), 16)) as threads:
        return list(
            tqdm(
                threads.map(partial(examine, verify=HEADER), paths),
                total=len(paths),
                desc="recordings to mix",
                unit="file",
                mininterval=0.5,
                disable=not if_main_process(),
            )
        )


def _why_skipped(found):
    if found.reason:
        return CUT if found.reason == CUT else "unreadable or empty"
    if found.channels > 1:
        # which may be of two speakers
        return f"{found.channels} channels, not one"
    if found.frames < SHORTEST_SECONDS * found.rate:
        return f"shorter than {SHORTEST_SECONDS} s"
    return None


def speaker_of(path, base_folder):
    """Whose recording a file is, by its name where that is WSJ0's or LibriSpeech's, else by its first folder.

    Returns
    -------
    str or None
        None if it lies in no folder of its own and its name tells nothing.

    Example
    -------
    >>> speaker_of("/wsj0/si_tr_s/011/011a0101.wav", "/wsj0"), speaker_of("/wsj0/011a0101.wav", "/wsj0")
    ('011', '011')
    >>> speaker_of("/voices/anna/monday/1.wav", "/voices")
    'anna'
    """
    folders = Path(path).relative_to(base_folder).parts[:-1]
    stem = Path(path).stem
    wsj0 = WSJ0_NAME.fullmatch(stem.lower())
    # a folder of another name is the stronger word: hexadecimal names look like WSJ0's
    if wsj0 and (not folders or folders[-1].lower() == wsj0[1]):
        return wsj0[1]
    librispeech = LIBRISPEECH_NAME.fullmatch(stem)
    if librispeech and (not folders or folders[-1] == librispeech[2]):
        return librispeech[1]
    return folders[0] if folders else None
