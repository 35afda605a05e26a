"""The answers of the service, as its OpenAPI description shows them."""

from pydantic import BaseModel, ConfigDict

from mamba_speech.asr.segments import segments_of


class FaultBody(BaseModel):
    """A code for programs and a sentence for people."""

    code: str
    message: str
    type: str


class Fault(BaseModel):
    """What every refused request gets."""

    error: FaultBody


class State(BaseModel):
    """How the service is."""

    status: str


class Model(BaseModel):
    """A model of the service."""

    name: str
    task: str
    sample_rate: int


class Models(BaseModel):
    """All models."""

    models: list[Model]


class Word(BaseModel):
    """A word with its times in seconds."""

    word: str
    start: float
    end: float
    confidence: float


class Segment(BaseModel):
    """Words between two pauses."""

    text: str
    start: float
    end: float


class Transcription(BaseModel):
    """What is said in a recording."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "asr", "text": "good morning", "seconds": 1.4, "warnings": []}
        }
    )

    model: str
    text: str
    seconds: float
    words: list[Word] | None = None
    segments: list[Segment] | None = None
    warnings: list[str] = []


class Event(BaseModel):
    """A keyword."""

    label: str
    start: float
    end: float
    confidence: float


class Keywords(BaseModel):
    """Keywords of a recording, in the order of time."""

    model: str
    seconds: float
    events: list[Event]
    warnings: list[str] = []


class Verification(BaseModel):
    """Whether two recordings are of one speaker; ``same`` is null for a model without a threshold."""

    model: str
    score: float
    same: bool | None
    threshold: float | None
    warnings: list[str] = []


class Embedding(BaseModel):
    """The embedding of a recording's speaker."""

    model: str
    seconds: float
    embedding: list[float]
    warnings: list[str] = []


def transcription_of(model, result, warnings):
    """The answer for a transcript.

    Arguments
    ---------
    model : str
    result : mamba_speech.asr.transcript.Transcript
    warnings : list of str

    Returns
    -------
    Transcription
    """
    told = {"model": model, "text": result.text, "seconds": result.seconds, "warnings": warnings}
    if result.words is not None:
        told["words"] = [word_of(one) for one in result.words]
        told["segments"] = [
            {"text": one.text, "start": round(one.start, 3), "end": round(one.end, 3)}
            for one in segments_of(result.words)
        ]
    return Transcription(**told)


def word_of(word):
    """The keys of :class:`Word`."""
    return {
        "word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 3),
    }
