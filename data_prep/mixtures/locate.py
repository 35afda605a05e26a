r"""Finding the recordings that a mixture list means, on another machine and in another form.

Lists of WSJ0 name `wsj0/si_tr_s/011/011a0101.wav`. On the disk that may be `SI_TR_S/011/011A0101.WV1`, in any folder.
"""

import os
import re
import unicodedata
from pathlib import PurePosixPath

from data_prep.contents import stamp
from mamba_speech.audio import AudioError
from mamba_speech.audio.finding import PassedOver, find_named, walk_files

# In the order in which one of several forms of a recording is taken. `.wv1` is SPHERE, of WSJ0's first microphone.
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".wv1", ".sph", ".wv2")
SECOND_MICROPHONE = ".wv2"
# 011a0101.wav of speaker 011
WSJ0_NAME = re.compile(r"(\d[0-9a-z]{2})[a-z][0-9a-z]{4}")


class Locator:
    """Where the recordings of a list are.

    A recording is taken as it is written, where that is a file. Otherwise a file is looked for whose path is the same
    but for upper case, `\\`, the form of accents, and the ending, and for folders above the listed path, or above the
    speech folder. A name of WSJ0 tells its speaker, so such a file is found in any folder of that speaker.

    Arguments
    ---------
    folder : str or Path
        The speech folder. It is looked through only once, and only if a recording is not as it is written.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> os.makedirs(f"{folder}/SI_TR_S/011")
    >>> _ = open(f"{folder}/SI_TR_S/011/011A0101.WV1", "w").write("NIST_1A")
    >>> Locator(folder).find("wsj0/si_tr_s/011/011a0101.wav")
    ('SI_TR_S/011/011A0101.WV1', None)
    """

    def __init__(self, folder):
        self.folder = os.fspath(folder)
        self._by_stem = None

    def find(self, name):
        """A recording.

        Arguments
        ---------
        name : str
            As the list has it.

        Returns
        -------
        found : str or None
            Path of the file, relative to the speech folder, or absolute where the list has it so.
        fault : str or None
            Why none is found.
        """
        try:
            path = os.fspath(find_named(name, self.folder))
        except AudioError as error:
            missing = str(error)
        else:
            return path if os.path.isabs(name) else os.path.relpath(path, self.folder), None
        if self._by_stem is None:
            self._by_stem = self._index()
        listed = comparable(name)
        ranked = {}
        for path in self._by_stem.get(listed[-1], ()):
            rank = rank_of(name, listed, path)
            if rank is not None:
                ranked.setdefault(rank, []).append(path)
        if not ranked:
            return (
                None,
                f"{missing}, nor is one below {self.folder} of its name but for case and ending",
            )
        best = ranked[min(ranked)]
        if len({stamp(os.path.join(self.folder, path)) for path in best}) > 1:
            return None, f"{name} may be {best[0]} or {best[1]}, and they differ"
        return best[0], None

    def _index(self):
        by_stem = {}
        for file in walk_files(self.folder, SUFFIXES, PassedOver()):
            path = os.path.relpath(file, self.folder)
            by_stem.setdefault(comparable(path)[-1], []).append(path)
        return by_stem


def locate(lists, folder):
    """Find the recordings of mixture lists.

    Arguments
    ---------
    lists : dict of str to list of Mixture
    folder : str or Path
        The speech folder.

    Returns
    -------
    found : dict of str to str
        From the name in the lists to the path relative to the folder.
    faults : dict of str to str
        From the names of recordings that are not found to the reason.
    """
    locator, found, faults = Locator(folder), {}, {}
    sources = (source for mixtures in lists.values() for one in mixtures for source in one.sources)
    for name in dict.fromkeys(name for source in sources for name in source.files):
        path, fault = locator.find(name)
        if fault:
            faults[name] = fault
        else:
            found[name] = path
    return found, faults


def rank_of(name, listed, path):
    """How well a file fits a listed name, the least being best; None if it is another recording.

    Arguments
    ---------
    name : str
        As the list has it.
    listed : tuple of str
        The same as `comparable` gives it.
    path : str
        Of the file, relative to the speech folder.
    """
    own = comparable(path)
    together = 0
    while together < min(len(own), len(listed)) and own[-1 - together] == listed[-1 - together]:
        together += 1
    # one of the two lies within the other's folder
    fits = together == min(len(own), len(listed))
    wsj0 = WSJ0_NAME.fullmatch(listed[-1])
    if wsj0 and (len(own) == 1 or own[-2] == wsj0[1]):
        fits = True
    elif len(listed) > 1 and together < 2 and len(own) > 1:
        fits = False
    ending, wanted = ending_of(path), ending_of(name)
    if SECOND_MICROPHONE in (ending, wanted) and ending != wanted and ending != ".wav":
        fits = False
    if not fits:
        return None
    return -together, ending != wanted, SUFFIXES.index(ending) if ending in SUFFIXES else 99


def comparable(name):
    r"""The parts of a path without what differs from one disk to another: case, `\`, accents' form, drive, ending.

    Example
    -------
    >>> comparable("C:\\data\\WSJ0\\011\\011A0101.WV1")
    ('data', 'wsj0', '011', '011a0101')
    """
    text = re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/").lower()
    parts = [
        part for part in unicodedata.normalize("NFC", text).split("/") if part not in ("", ".")
    ]
    stem = parts[-1] if parts else ""
    # sph2pipe's 011a0101.wv1.wav has two endings
    while os.path.splitext(stem)[1] in SUFFIXES:
        stem = os.path.splitext(stem)[0]
    return (*parts[:-1], stem)


def ending_of(path):
    """The ending of a recording in lower case; `.wv2` also where it was converted to `011a0101.wv2.wav`."""
    stem, ending = os.path.splitext(path.lower())
    return SECOND_MICROPHONE if stem.endswith(SECOND_MICROPHONE) else ending


def speaker_and_stem(name):
    r"""Speaker and stem of a listed recording: a name of WSJ0 tells its speaker, else the folder does.

    Example
    -------
    >>> speaker_and_stem("wsj0\\si_tr_s\\011\\011a0101.wav"), speaker_and_stem("speech/anna/1.flac")
    (('011', '011a0101'), ('anna', '1'))
    """
    path = PurePosixPath(re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/"))
    stem = path.name
    while os.path.splitext(stem)[1].lower() in SUFFIXES:
        stem = os.path.splitext(stem)[0]
    wsj0 = WSJ0_NAME.fullmatch(stem.lower())
    return (wsj0[1] if wsj0 else path.parent.name), stem
