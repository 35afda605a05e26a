"""Where the recordings of a list lie: beside it, in the folders that known corpora use, or as the path stands."""

import os
from pathlib import Path

from mamba_speech.audio import AudioError
from mamba_speech.audio.finding import find_named

# folders beside the list, of Common Voice (clips) and LJSpeech (wavs)
_FOLDERS = ("clips", "wavs", "wav", "audio")
# letters of a sentence about a path
LONGEST_FAULT = 500
# endings that lists of names without one leave out
_ENDINGS = (".wav", ".flac", ".mp3", ".ogg")


class Locator:
    """Finds the file that a list means by a path.

    A relative path is looked for in the list's folder, then in the folders that known corpora put beside their lists,
    then in the current folder. A name without an ending may be of a WAV, FLAC, MP3 or Ogg file.

    Arguments
    ---------
    folder : str or Path
        Folder of the list.

    Example
    -------
    >>> Locator("lists")("a.wav").as_posix()
    'lists/a.wav'
    """

    def __init__(self, folder):
        self.folder = os.fspath(folder)
        self._beside = [
            place for name in _FOLDERS if os.path.isdir(place := os.path.join(folder, name))
        ]

    def __call__(self, name):
        """The file; where there is none, the path in the list's folder.

        Raises
        ------
        ValueError
            If there is none under other spellings either; the sentence says what was tried.
        """
        plain = os.path.basename(name) == name
        folders = [self.folder, *(self._beside if plain else ()), ""]
        has_ending = os.path.splitext(name)[1].lower() in _ENDINGS
        for ending in ("",) if has_ending else ("", *_ENDINGS):
            for folder in folders:
                path = os.path.join(folder, name + ending)
                if os.path.isfile(path):
                    return Path(path)
        return self._other_spelling(name, folders)

    def _other_spelling(self, name, folders):
        fault = None
        for folder in dict.fromkeys(folders):
            try:
                return find_named(name, folder)
            except AudioError as error:
                fault = fault or error
        if "\\" in name or not name.isascii():
            raise ValueError(str(fault)[:LONGEST_FAULT]) from fault
        # the reader of the file says that it is not there
        return Path(self.folder, name)
