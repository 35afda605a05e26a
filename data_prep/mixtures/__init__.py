"""Mixtures of several speakers for separation, from WSJ0's lists or from any single-speaker speech.

`python -m data_prep.mixtures OUT --speech FOLDER` makes a folder like WSJ0-2mix. The steps may be
called alone: find speech, draw or read a list, build it.
"""

from data_prep.mixtures.build import Settings, build_mixtures, write_speech
from data_prep.mixtures.draw import choose_splits, draw_mixtures
from data_prep.mixtures.halves import halve_speakers
from data_prep.mixtures.lists import Mixture, Source, find_lists, read_list, write_list
from data_prep.mixtures.speech import find_speech

__all__ = [
    "Mixture",
    "Settings",
    "Source",
    "build_mixtures",
    "choose_splits",
    "draw_mixtures",
    "find_lists",
    "find_speech",
    "halve_speakers",
    "read_list",
    "write_list",
    "write_speech",
]
