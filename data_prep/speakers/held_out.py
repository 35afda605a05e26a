"""Keeping the speakers of trial lists out of training, under whichever name a corpus knows them."""

import logging
import re
from collections import Counter

from data_prep.trials import read_trials, speaker_of

logger = logging.getLogger(__name__)


def name_lists(lists):
    """Name trial lists as `read_trials` does, with their folder's name before it where two would be called alike.

    Arguments
    ---------
    lists : list of (Path, str)
        Each file with the name that `read_trials` gives.

    Returns
    -------
    named : dict of str to Path

    Raises
    ------
    ValueError
        If two lists are still called alike.

    Example
    -------
    >>> from pathlib import Path
    >>> list(name_lists([(Path("a/veri_test2.txt"), "veri_test2"), (Path("b/veri_test2.txt"), "veri_test2")]))
    ['a-veri_test2', 'b-veri_test2']
    """
    taken = Counter(name for _, name in lists)
    named = {}
    for file, name in lists:
        if taken[name] > 1:
            name = f"{file.absolute().parent.name}-{name}"
        if name in named:
            raise ValueError(
                f"the trial lists {named[name]} and {file} would both be called {name}; rename one of them"
            )
        named[name] = file
    return named


def read_lists(lists, folders, recordings):
    """Read trial lists and find their recordings.

    Arguments
    ---------
    lists : list of Path
    folders : list of Path
    recordings : data_prep.speakers.recordings.Recordings

    Returns
    -------
    tested : set of str
        Their speakers: as the paths of the lists name them, and as the folders of the recordings do.
    named : dict of str to Path
        From the name of each list to its file.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_trials` and `name_lists`.
    """
    tested, found = set(), []
    for file in lists:
        trials = read_trials(file, folders)
        found.append((file, trials.name))
        speakers = {speaker_of(one) for one in trials.files}
        speakers |= {recordings.speaker_of_path(path) for path in trials.paths}
        tested |= speakers - {None}
        logger.info(
            "%s: %d trials of %d recordings, %d of them target trials",
            file,
            len(trials),
            len(trials.files),
            int(trials.labels.sum()),
        )
    return tested, name_lists(found)


def person(speaker):
    """What two names of one speaker have in common: the number, as `id00019` and LibriSpeech's `19`.

    Example
    -------
    >>> person("id00019") == person("other:19"), person("id00019") == person("id00190")
    (True, False)
    """
    name = speaker.rpartition(":")[2]
    number = re.fullmatch(r"(?:id)?0*(\d+)", name)
    return number[1] if number else name


def group_usable(recordings, tested):
    """The usable recordings of each speaker who is in no trial list.

    Arguments
    ---------
    recordings : Recordings
        After `check`.
    tested : set of str

    Returns
    -------
    usable : dict of int to list of int
        From places in `recordings.speakers` to recordings.
    """
    people = {person(speaker) for speaker in tested}
    dropped = {index for index, name in enumerate(recordings.speakers) if person(name) in people}
    usable, left_out = {}, 0
    for index, speaker in enumerate(recordings.speaker):
        if not recordings.frames[index]:
            continue
        if speaker in dropped:
            left_out += 1
        else:
            usable.setdefault(speaker, []).append(index)
    if dropped:
        logger.info(
            "%d speakers of the trial lists, with %d recordings, are kept out of training and validation",
            len(dropped),
            left_out,
        )
    return usable
