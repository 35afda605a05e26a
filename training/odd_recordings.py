"""Recordings that a run uses although they are odd: one line in its log for the first of a kind, and counts."""

import logging

from speechbrain.utils.distributed import if_main_process

logger = logging.getLogger(__name__)


class OddRecordings:
    """The recordings that were read with warnings, by kind.

    Example
    -------
    >>> from mamba_speech.audio import AudioWarning
    >>> odd = OddRecordings()
    >>> for name in ("a.wav", "b.wav", "a.wav"):
    ...     odd.note([AudioWarning("truncated", f"{name}: was cut off")])
    >>> odd.counts()
    {'truncated': 2}
    """

    def __init__(self):
        self._found, self._told = {}, {}

    def note(self, warnings):
        """Add warnings, and log the first of each kind.

        Arguments
        ---------
        warnings : iterable of mamba_speech.audio.AudioWarning
        """
        for one in warnings:
            texts = self._found.setdefault(one.kind, set())
            if not texts and if_main_process():
                logger.warning("%s (%s; the next ones are counted)", one.text, one.kind)
            # the same recording is read in every epoch
            texts.add(hash(one.text))

    def counts(self):
        """How many recordings there are of each kind."""
        return {kind: len(texts) for kind, texts in sorted(self._found.items())}

    def tell(self):
        """Log the counts, where they are others than the last time."""
        counts = self.counts()
        if counts != self._told and if_main_process():
            told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            logger.warning("recordings read with a warning so far: %s", told)
        self._told = counts
