"""The folder of odd inputs: what writes it, and where each input lies."""

import re

import numpy as np

from tests.support.oddities import contents, formats, headers, names
from tests.support.oddities.inputs import RATE, Odd
from tests.support.oddities.lists import write_recordings
from tests.support.verification import say

ODD = (*formats.ODD, *headers.ODD, *contents.ODD, *names.ODD)
PLAIN = Odd("Plain", "the plain recording", "plain.wav", names.plain)


def spoken():
    """Samples of the plain recording, 0.6 s of a voice at 16 kHz, whole multiples of 2 ** -15."""
    return np.round(say(1, 0.6, rate=RATE) * 2**15) / 2**15


def write_folder(folder, inputs=ODD):
    """Write odd inputs, each into a folder of its own.

    Arguments
    ---------
    folder : Path
    inputs : iterable of Odd

    Returns
    -------
    paths : dict of Odd to Path
    """
    samples, paths = spoken(), {}
    for number, odd in enumerate([PLAIN, *inputs]):
        place = folder / f"{number:03}-{slug(odd.name)}"
        path = place / odd.file
        path.parent.mkdir(parents=True)
        odd.write(path, samples)
        paths[odd.name] = path
    return paths


def write_lists(folder, chosen):
    """Write odd lists, each into a folder of its own with the recordings.

    Arguments
    ---------
    folder : Path
    chosen : iterable of OddList

    Returns
    -------
    paths : dict of str to Path
        The lists by their names.
    """
    samples, paths = spoken(), {}
    for number, odd in enumerate(chosen):
        place = folder / f"{number:03}-{slug(odd.name)}"
        place.mkdir(parents=True)
        write_recordings(place, samples)
        odd.write(place, samples)
        paths[odd.name] = place / odd.file
    return paths


def write_trees(folder, chosen):
    """Write odd folders.

    Arguments
    ---------
    folder : Path
    chosen : iterable of OddTree

    Returns
    -------
    paths : dict of str to Path
        The folders by their names.
    """
    samples, paths = spoken(), {}
    for number, odd in enumerate(chosen):
        paths[odd.name] = folder / f"{number:03}-{slug(odd.name)}"
        paths[odd.name].mkdir(parents=True)
        odd.write(paths[odd.name], samples)
    return paths


def slug(name):
    """A name of a folder, of letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
