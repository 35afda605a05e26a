"""Keeping the speakers of trial lists out of training, under whichever name a corpus knows them."""

import logging
import re

from data_prep.trials import read_trials, speaker_of

logger = logging.getLogger(__name__)


def read_lists(lists, folders, recordings):
    """Read trial lists and find their recordings.

    Arguments
    ---------
    lists : list of Path
    folders : list of Path
    recordings : Recordings

    Returns
    -------
    tested : set of str
        Their speakers: as the paths of the lists name them, and as the folders of the recordings do.
    named : dict of str to Path
        From the name of each list to its file.

    Raises
    ------
    ValueError
        If two lists have one name.
    """
    tested, named = set(), {}
    for file in lists:
        trials = read_trials(file, folders)
        if trials.name in named:
            raise ValueError(
                f"{named[trials.name]} and {file} would both be called {trials.name}; rename one of them"
            )
        named[trials.name] = file
        speakers = {speaker_of(one) for one in trials.files}
        speakers |= {recordings.speaker_of_path(path) for path in trials.paths}
        tested |= speakers - {None}
        logger.info(
            "%s (%s): %d trials of %d recordings, %d of them target trials",
            trials.name,
            file,
            len(trials),
            len(trials.files),
            int(trials.labels.sum()),
        )
    return tested, named


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
