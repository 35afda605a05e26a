"""Recordings that a training set draws at random, and replaces by another draw where they cannot be used.

Which they were is known to the main process too, whichever worker of a loader met them, so that a run can list them.
"""

import torch

from mamba_speech.audio import AudioError, load_audio

REASONS = ("", "unreadable", "silent")


class ReplacedFiles:
    """The recordings among many that were found at fault; shared with the workers that a process starts.

    Arguments
    ---------
    paths : iterable of str

    Example
    -------
    >>> files = ReplacedFiles(["a.wav", "b.wav"])
    >>> files.note("b.wav", "unreadable"), files.note("b.wav", "unreadable")
    (True, False)
    >>> files.reasons, files.unreadable
    ({'b.wav': 'unreadable'}, {'b.wav': 'b.wav: no such file'})
    """

    def __init__(self, paths):
        self.paths = [str(path) for path in paths]
        self._places = {path: at for at, path in enumerate(self.paths)}
        self._reasons = torch.zeros(len(self.paths), dtype=torch.uint8).share_memory_()
        self._sentences = {}

    def __len__(self):
        return len(self.paths)

    def note(self, path, reason):
        """Note a recording with its fault, one of ``REASONS``; whether no fault of it was known."""
        at = self._places[str(path)]
        new = not self._reasons[at]
        if new:
            self._reasons[at] = REASONS.index(reason)
        return new

    @property
    def reasons(self):
        """The recordings found at fault so far, by any worker: path to reason."""
        places = self._reasons.nonzero().flatten().tolist()
        return {self.paths[at]: REASONS[self._reasons[at]] for at in places}

    @property
    def unreadable(self):
        """The recordings that could not be read so far: path to a sentence that says why."""
        places = (self._reasons == REASONS.index("unreadable")).nonzero().flatten().tolist()
        return {self.paths[at]: self._sentence(self.paths[at]) for at in places}

    def _sentence(self, path):
        if path not in self._sentences:
            try:
                load_audio(path, 16000)
                self._sentences[path] = f"{path}: could not be read where it was drawn"
            except AudioError as error:
                self._sentences[path] = str(error)
        return self._sentences[path]
