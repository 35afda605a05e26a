"""The part of OpenAI's interface that transcribes, so that its clients work unchanged.

Source: OpenAI API reference, "Audio", "Create transcription" (2025).
"""

from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse

from mamba_speech.asr.segments import segments_of
from mamba_speech.asr.transcript_formats import as_srt, as_vtt
from mamba_speech.serving.models import TASKS_OF_PATHS

# names that clients give when nobody has told them another
USUAL_NAMES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
Format = Literal["json", "text", "srt", "vtt", "verbose_json"]


def router(service):
    """The paths under ``/v1``.

    Arguments
    ---------
    service : mamba_speech.serving.app.Service

    Returns
    -------
    fastapi.APIRouter
    """
    paths = APIRouter(prefix="/v1", tags=["OpenAI"])

    @paths.get("/models")
    async def models():
        """The recognisers."""
        found = [
            {"id": one.name, "object": "model", "created": 0, "owned_by": "mamba-speech"}
            for one in service.models.values()
            if one.task in TASKS_OF_PATHS["transcribe"]
        ]
        return {"object": "list", "data": found}

    @paths.post("/audio/transcriptions")
    async def transcribe(
        file: Annotated[UploadFile, File(description="A recording of any format")],
        model: Annotated[str | None, Form(description="A model of /v1/models")] = None,
        response_format: Annotated[Format, Form()] = "json",
        timestamp_granularities: Annotated[
            list[Literal["word", "segment"]] | None, Form(alias="timestamp_granularities[]")
        ] = None,
        language: Annotated[str | None, Form(description="Not used")] = None,
        prompt: Annotated[str | None, Form(description="Not used")] = None,
        temperature: Annotated[float | None, Form(description="Not used")] = None,
    ):
        """Write down what is said."""
        name = None if model in USUAL_NAMES and model not in service.models else model
        timed = response_format in ("srt", "vtt", "verbose_json")
        kind = ("transcribe", timed)
        _, result, _ = await service.answer("transcribe", name, kind, file)
        if response_format == "text":
            return PlainTextResponse(f"{result.text}\n")
        if response_format == "srt":
            return PlainTextResponse(as_srt(result))
        if response_format == "vtt":
            return PlainTextResponse(as_vtt(result))
        if response_format == "json":
            return JSONResponse({"text": result.text})
        wanted = timestamp_granularities or ["segment"]
        return JSONResponse(_verbose(result, language, wanted))

    return paths


def _verbose(result, language, wanted):
    """The object of ``verbose_json``."""
    told = {"task": "transcribe", "language": language or "", "duration": result.seconds}
    told["text"] = result.text
    if "segment" in wanted:
        told["segments"] = [
            {
                "id": number,
                "seek": 0,
                "start": round(one.start, 3),
                "end": round(one.end, 3),
                "text": one.text,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": 0.0,
                "compression_ratio": 1.0,
                "no_speech_prob": 0.0,
            }
            for number, one in enumerate(segments_of(result.words))
        ]
    if "word" in wanted:
        told["words"] = [
            {"word": one.text, "start": round(one.start, 3), "end": round(one.end, 3)}
            for one in result.words
        ]
    return told
