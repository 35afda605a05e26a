"""What a recogniser gives for one recording."""

from dataclasses import dataclass

from mamba_speech.recordings import RecordingResult


@dataclass(frozen=True, kw_only=True)
class Transcript(RecordingResult):
    """What is said in one recording; ``str()`` of it is the text.

    Attributes
    ----------
    text : str or None
        None where there is an error.
    words : tuple of mamba_speech.asr.alignment.Word or None
        The words of the text with their times, if they were asked for.
    nbest : tuple of mamba_speech.asr.nbest.Hypothesis
        Different texts with their scores, the best first, if more than one was asked for.
    path, seconds, error, warnings
        See :class:`mamba_speech.recordings.RecordingResult`.

    Example
    -------
    >>> print(Transcript(path="x.wav", text="one two", seconds=1.5))
    one two
    """

    text: str | None = None
    words: tuple | None = None
    nbest: tuple = ()

    def __str__(self):
        return self.text or ""
