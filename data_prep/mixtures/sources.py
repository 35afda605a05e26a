"""Which recordings can be a source: each is read whole, as mixing reads it, before anything is drawn."""

import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.contents import read_note, stamp
from data_prep.mixtures.lists import Source
from data_prep.mixtures.loading import UnusableError, load_source
from data_prep.mixtures.speech import fault_of
from data_prep.mixtures.workers import Workers
from data_prep.verify import FULL, Skipped
from mamba_speech.audio.names import printable

logger = logging.getLogger(__name__)

# What is quieter may be rounded to silence in a mixture: 80 dB below full scale, 55 below the level of a source.
AUDIBLE = 1e-4
PLUS = "with a + in the path, which a mixture list cannot hold"
NOT_UTF8 = "with a name that is not UTF-8, which a mixture list cannot hold"


@dataclass(frozen=True)
class Span:
    """How long a recording is, and when its sound begins.

    Arguments
    ---------
    seconds : float
    onset : float
        Seconds before the first sound. A mixture that is cut before then holds only the other speakers.
    """

    seconds: float
    onset: float = 0.0


class CheckedSpeech:
    """The recordings of single speakers that can be sources, and why the others cannot.

    Arguments
    ---------
    folder : str or Path
        What the recordings' paths are relative to.
    min_seconds : float
        Shorter recordings are left out.
    settings : list of Settings
        What the mixtures shall be like; a recording must be usable for all.
    verify : str
        `full` reads every recording whole. `header` reads its header: damage and silence go unnoticed, and their
        mixtures are left out when they are made.
    note : str or Path, optional
        What an earlier run found out is read from this file. A recording that has not changed since is not read again.
    jobs : int, optional
        Processes.

    Attributes
    ----------
    skipped : list of Skipped
    total : int
        Recordings that were looked at.
    spans : dict of str to Span
        Of the usable recordings.
    """

    def __init__(self, folder, min_seconds, settings, verify=FULL, note=None, jobs=None):
        self.folder, self.min_seconds, self.settings = Path(folder), min_seconds, list(settings)
        self.verify, self.note, self.jobs = verify, note, jobs
        self.skipped, self.total, self.spans, self._found = [], 0, {}, {}

    def usable(self, speakers):
        """Leave out what cannot be a source.

        Arguments
        ---------
        speakers : dict of str to list of str
            Recordings of each.

        Returns
        -------
        speakers : dict of str to list of str
            Without speakers of whom nothing is left.
        """
        names = [name for files in speakers.values() for name in files]
        known = self._known(names)
        look = partial(look_at, folder=self.folder, min_seconds=self.min_seconds)
        look = partial(look, settings=self.settings if self.verify == FULL else ())
        waiting = [name for name in names if name not in known]
        with Workers(self.jobs) as workers:
            looked = workers.run(look, waiting, len(names), "looking at recordings")
        found = known | dict(zip(waiting, looked, strict=True))
        kept = {}
        for speaker, files in speakers.items():
            for name in files:
                fault, seconds, onset = found[name][1:]
                if fault:
                    path = printable(str(self.folder / name))
                    self.skipped.append(Skipped(printable(name), path, fault))
                else:
                    self.spans[name] = Span(seconds, onset)
                    kept.setdefault(speaker, []).append(name)
        self.total += len(names)
        self._found |= {name: one for name, one in found.items() if printable(name) == name}
        return kept

    def _known(self, names):
        """What an earlier run found out about files that have not changed since."""
        noted = read_note(self.note) if self.note else {}
        if noted.get("check") != self._check():
            return {}
        files = noted.get("recordings")
        files = files if isinstance(files, dict) else {}
        return {
            name: files[name]
            for name in names
            if len(files.get(name, ())) == 4 and files[name][0] == stamp(self.folder / name)
        }

    def to_note(self):
        """What a later run need not find out again, as JSON can hold it."""
        return {"check": self._check(), "recordings": self._found}

    def _check(self):
        wanted = [[one.sample_rate, one.loudness] for one in self.settings]
        return [str(self.folder.absolute()), self.min_seconds, self.verify, wanted]

    def left_out(self):
        """How many recordings are left out and why, as the end of a sentence; nothing where all are usable."""
        if not self.skipped:
            return ""
        counts = Counter(one.reason for one in self.skipped).most_common()
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
        first = self.skipped[0].id
        return f"; {len(self.skipped)} of {self.total} recordings are left out ({reasons}), {first} first"


def look_at(name, folder, min_seconds, settings):
    """Stamp, fault, seconds and onset of a recording.

    Arguments
    ---------
    name : str
        Relative to `folder`.
    folder : Path
    min_seconds : float
    settings : list of Settings
        Without any, only the header is read.

    Returns
    -------
    found : list of (str, str or None, float, float)
    """
    before = stamp(folder / name)
    fault, seconds = fault_of(folder / name, min_seconds)
    if "+" in name or printable(name) != name:
        fault = PLUS if "+" in name else NOT_UTF8
    onset = 0.0
    try:
        for one in () if fault else settings:
            waveform = load_source(Source("", (name,), 0.0), one)
            loud = np.flatnonzero(np.abs(waveform) >= AUDIBLE)
            first = loud[0] if len(loud) else len(waveform)
            onset = max(onset, float(first) / one.sample_rate)
    except UnusableError as error:
        fault = str(error).removeprefix(name).strip().removeprefix("is ")
    return [before, fault, seconds, onset]
