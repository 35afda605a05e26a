"""What the methods of a speaker verifier give."""

from dataclasses import dataclass, field
from typing import NamedTuple

from mamba_speech.recordings import RecordingResult


@dataclass(frozen=True, kw_only=True, eq=False)
class Verification(RecordingResult):
    """Whether one recording is of the same speaker as another.

    Attributes
    ----------
    score : float or None
        Cosine of the two embeddings, from -1 to 1; None where there is an error.
    same : bool or None
        Whether the score is above the threshold; None without a threshold, or where there is an error.
    threshold : float or None
    threshold_source : str or None
        Where the threshold comes from, in words.
    enrolment : str or None
        The file that the recording is compared with; None for a waveform.
    path, seconds, error, warnings
        Of the recording, see :class:`mamba_speech.recordings.RecordingResult`.
    """

    score: float | None = None
    same: bool | None = None
    threshold: float | None = None
    threshold_source: str | None = None
    enrolment: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Identification(RecordingResult):
    """Who of the known speakers is heard in one recording.

    Attributes
    ----------
    speaker : str or None
        The name of the nearest speaker; None for an unknown one, or where there is an error.
    score : float or None
        Score of the nearest speaker, above the threshold or not.
    threshold : float or None
    ranking : list of (str, float)
        Names and scores of all speakers of the database, the nearest first.
    path, seconds, error, warnings
        See :class:`mamba_speech.recordings.RecordingResult`.
    """

    speaker: str | None = None
    score: float | None = None
    threshold: float | None = None
    ranking: list = field(default_factory=list)


class Similarity(NamedTuple):
    """What :meth:`SpeakerVerifier.verify_speakers` gives.

    Attributes
    ----------
    similarity : float
        See :class:`Verification`.
    same : bool or None
    """

    similarity: float
    same: bool | None
