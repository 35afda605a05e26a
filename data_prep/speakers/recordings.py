"""The recordings of many speakers: who speaks in which file and session, in a few bytes a file.

VoxCeleb's layout is `<speaker>/<session>/<file>` at any depth. Folders of single words, of Free Spoken Digits and
of `<speaker>/<file>` are understood too, so that other corpora lend their voices.
"""

import hashlib
import logging
import os
import re
from array import array
from sys import intern

import numpy as np
from tqdm import tqdm

from data_prep.contents import stamp
from data_prep.inspection import tell_oddities
from data_prep.speakers.checker import SHARE, Checkers
from data_prep.verify import BREAK_INSIDE, FULL, LINE_BREAK, NOT_UTF8, Skipped
from mamba_speech.audio.finding import PassedOver, walk_folders
from mamba_speech.audio.names import is_utf8, printable

logger = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".m4a")
# Where nothing tells one time of recording from another.
ONE_SESSION = "-"
DIGIT = re.compile(r"\d_(\w+)_\d+")
# Why a recording is left out for its place or name.
NO_SPEAKER = "no speaker's folder above it"
NAME_REASONS = (NO_SPEAKER, BREAK_INSIDE, NOT_UTF8)


class Recordings:
    """Files of several folders in sorted order, each with its speaker and session.

    Columns of numbers point into lists of names that occur often, so that a million files need some 60 MB.

    Attributes
    ----------
    speakers : list of str
        Names. Speakers of the second and any further folder have its prefix: `wake_words:v074`.
    folder_of_speaker : list of int
        Which of the folders a speaker belongs to.
    sessions : list of str
    speaker, session : array of int
        Place of each file's speaker and session in these lists.
    frames, rate : np.ndarray
        Samples and samples a second of each file; 0 samples mark a file that cannot be used. Zeros before `check`.
    skipped : list of Skipped
        Files that were left out so far, and why.
    doubled : int
        Files that were passed over since the same recording lies beside them in a better format.
    """

    def __init__(self):
        self.speakers, self.folder_of_speaker, self.sessions = [], [], []
        self.speaker, self.session = array("i"), array("i")
        self.frames = self.rate = np.zeros(0, dtype=np.int32)
        self.skipped, self.doubled = [], 0
        self._roots, self._prefixes = [], []
        self._places, self._root_of_place = [], []
        self._place, self._names = array("i"), []
        self._digest = hashlib.sha256()
        self._speaker_index, self._session_index = {}, {}

    def __len__(self):
        return len(self._names)

    def add_folder(self, folder, prefix=""):
        """Find the recordings of a folder, with a progress bar.

        Arguments
        ---------
        folder : str or Path
            Folders and files whose names begin with a dot or an underscore are passed over.
        prefix : str
            Put before the names of its speakers.
        """
        root = os.path.abspath(folder)
        self._roots.append(root)
        self._prefixes.append(prefix)
        bar = tqdm(desc=f"looking through {folder}", unit="file", mininterval=0.5)
        passed = PassedOver()
        for place, names in walk_folders(root, SUFFIXES, passed, hidden="._"):
            self._add_place(root, place, sorted(names, key=_by_stem_and_format))
            bar.update(len(names))
        bar.close()
        passed.warn(folder)

    def _add_place(self, root, place, names):
        """Add the files of one folder, each stem once."""
        parts = tuple(os.path.relpath(place, root).split(os.sep)) if place != root else ()
        self._digest.update(os.fsencode(f"{place}\n"))
        stems = set()
        for name in names:
            self._digest.update(os.fsencode(f"{name} {stamp(f'{place}{os.sep}{name}')}\n"))
            stem = os.path.splitext(name)[0]
            if stem in stems:
                self.doubled += 1
                continue
            found = identify(parts, stem)
            path = os.path.join(place, name)
            if found is None:
                reason = NO_SPEAKER
            elif not is_utf8(path):
                reason = NOT_UTF8
            elif LINE_BREAK.search(path):
                reason = BREAK_INSIDE
            else:
                stems.add(stem)
                self._add(place, name, *found)
                continue
            name = "/".join((*parts, stem))
            self.skipped.append(Skipped(printable(name), printable(path), reason))

    def _add(self, place, name, speaker, session):
        number = len(self._roots) - 1
        if not self._places or self._places[-1] != place:
            self._places.append(place)
            self._root_of_place.append(number)
        key = (number, speaker)
        index = self._speaker_index.setdefault(key, len(self.speakers))
        if index == len(self.speakers):
            self.speakers.append(self._prefixes[-1] + speaker)
            self.folder_of_speaker.append(number)
        at = self._session_index.setdefault((index, session), len(self.sessions))
        if at == len(self.sessions):
            self.sessions.append(session)
        self._place.append(len(self._places) - 1)
        self._names.append(intern(name))
        self.speaker.append(index)
        self.session.append(at)

    def path(self, index):
        """The absolute path of a file."""
        return f"{self._places[self._place[index]]}{os.sep}{self._names[index]}"

    def id(self, index):
        """The id of a file: its path within its folder, without its ending."""
        root = self._root_of_place[self._place[index]]
        relative = os.path.relpath(self.path(index), self._roots[root])
        return self._prefixes[root] + os.path.splitext(relative)[0].replace(os.sep, "/")

    def listed_path(self, index):
        """The path of a file for a trial list: within the first folder, absolute in any further one."""
        if self._root_of_place[self._place[index]]:
            return self.path(index)
        return os.path.relpath(self.path(index), self._roots[0]).replace(os.sep, "/")

    def fingerprint(self):
        """A hash that changes when a file comes, goes, or gets another size or time of change."""
        return self._digest.hexdigest()

    def speaker_of_path(self, path):
        """The name of the speaker whom a file in one of the folders belongs to; None if it is elsewhere."""
        for root, prefix in zip(self._roots, self._prefixes, strict=True):
            if path.startswith(root + os.sep):
                *parts, name = os.path.relpath(path, root).split(os.sep)
                found = identify(tuple(parts), os.path.splitext(name)[0])
                return prefix + found[0] if found else None
        return None

    def check(self, workers=None, verify=FULL):
        """Read every file, with a progress bar; note its length, and in `skipped` what cannot be used.

        Arguments
        ---------
        workers : int, optional
            Files opened at a time; see `data_prep.speakers.checker.Checkers`.
        verify : str
            See `data_prep.verify.inspect`.
        """
        self.frames = np.zeros(len(self), dtype=np.int32)
        self.rate = np.ones(len(self), dtype=np.int32)
        starts = range(0, len(self), SHARE)
        with (
            Checkers(len(self), workers, verify) as checkers,
            tqdm(total=len(self), desc="checking", unit="file", mininterval=0.5) as bar,
        ):
            # only so many at once: a queue of a whole corpus would outgrow the corpus
            size = 32 * checkers.workers
            for first in range(0, len(starts), size):
                shares = [
                    range(one, min(one + SHARE, len(self))) for one in starts[first : first + size]
                ]
                paths = [[self.path(index) for index in share] for share in shares]
                for share, results in zip(shares, checkers.map(paths), strict=True):
                    for index, result in zip(share, results, strict=True):
                        self._note(index, *result)
                    bar.update(len(share))
        tell_oddities(checkers.odd, "the recordings")

    def _note(self, index, frames, rate, reason):
        if reason is None and frames > np.iinfo(np.int32).max:
            frames, reason = 0, "more samples than a recording can have"
        self.frames[index], self.rate[index] = frames, rate
        if reason:
            self.skipped.append(Skipped(self.id(index), self.path(index), reason))

    def first_of(self, suffix):
        """How many files have an ending, and the path of the first."""
        found = [k for k, name in enumerate(self._names) if name.lower().endswith(suffix)]
        return len(found), self.path(found[0]) if found else None


def _by_stem_and_format(name):
    stem, suffix = os.path.splitext(name)
    return stem, SUFFIXES.index(suffix.lower())


def identify(parts, stem):
    """Speaker and session of a file by its place.

    Arguments
    ---------
    parts : tuple of str
        Folders between the corpus and the file.
    stem : str
        Name of the file without its ending.

    Returns
    -------
    found : (str, str) or None
        None where no folder names a speaker.

    Example
    -------
    >>> identify(("vox1_dev_wav", "wav", "id10001", "1zcIwhmdeo4"), "00001")
    ('id10001', '1zcIwhmdeo4')
    >>> identify(("yes",), "0a7c2a8d_nohash_0"), identify(("recordings",), "7_theo_32")
    (('0a7c2a8d', '-'), ('theo', '-'))
    >>> identify(("anna",), "first"), identify((), "first")
    (('anna', '-'), None)
    """
    if "_nohash_" in stem:
        return stem.partition("_nohash_")[0], ONE_SESSION
    if parts and parts[-1] == "recordings" and DIGIT.fullmatch(stem):
        return DIGIT.fullmatch(stem)[1], ONE_SESSION
    if len(parts) > 1:
        return parts[-2], parts[-1]
    return (parts[0], ONE_SESSION) if parts else None
