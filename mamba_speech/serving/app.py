"""The application: paths for every task, and what describes and watches the service."""

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from mamba_speech import __version__
from mamba_speech.serving import openai_api, streams
from mamba_speech.serving.answers import (
    Embedding,
    Fault,
    Keywords,
    Models,
    State,
    Transcription,
    Verification,
    transcription_of,
)
from mamba_speech.serving.decoding import UploadDecoder
from mamba_speech.serving.errors import ServiceError
from mamba_speech.serving.guard import OPEN_PATHS, Guard
from mamba_speech.serving.metrics import Metrics
from mamba_speech.serving.models import as_wav, choose_model, load_models, zipped

_STATUSES = {
    400: "A request that cannot be read",
    401: "No key, or a wrong one",
    404: "No such model, or one of another task",
    413: "Too large or too long",
    422: "No usable audio, or a wrong value",
    429: "Too many requests wait",
    503: "The service is shutting down",
    504: "No answer in time",
}
FAULTS = {status: {"model": Fault, "description": text} for status, text in _STATUSES.items()}
Recording = Annotated[UploadFile, File(description="A recording of any format")]
ModelName = Annotated[
    str | None, Form(description="Name of the model; default: the first of the task")
]


class Service:
    """What the paths share.

    Arguments
    ---------
    settings : mamba_speech.serving.settings.Settings

    Raises
    ------
    FileNotFoundError, RuntimeError, ValueError
        If a model cannot be loaded.
    """

    def __init__(self, settings):
        self.settings, self.metrics = settings, Metrics()
        self.models = load_models(settings, self.metrics.observe_batch)
        self.decoder, self.ready, self.streams = None, False, 0

    def start(self):
        """Start the processes that decode."""
        limits = self.settings
        self.decoder = UploadDecoder(
            limits.decoders, limits.decoder_memory_mb, limits.decoder_seconds, limits.max_seconds
        )
        self.ready = True

    async def stop(self):
        """Answer what waits, then end."""
        self.ready = False
        await asyncio.gather(*(model.batcher.close() for model in self.models.values()))
        self.decoder.close()

    async def hear(self, upload, model):
        """The waveform of an upload at the model's rate, and what is odd about it."""
        with tempfile.TemporaryDirectory(prefix="mamba-speech-") as folder:
            # never under the client's name
            path = Path(folder) / "upload"
            await run_in_threadpool(_copy, upload.file, path)
            waveform, warnings = await self.decoder.decode(path, model.sample_rate)
        self.metrics.audio.labels(model=model.name).inc(len(waveform) / model.sample_rate)
        return waveform, warnings

    async def answer(self, path, name, kind, *uploads):
        """The model of a path, its result for uploads, and warnings.

        Arguments
        ---------
        path : str
            See :func:`mamba_speech.serving.models.choose_model`.
        name : str or None
        kind : tuple
            See :meth:`mamba_speech.serving.models.ServedModel.ask`.
        *uploads : fastapi.UploadFile

        Returns
        -------
        (ServedModel, object, list of str)

        Raises
        ------
        ServiceError
        """
        model = choose_model(self.models, path, name)
        limit = self.settings.request_seconds
        try:
            work = self._heard_and_answered(model, kind, uploads)
            result, warnings = await asyncio.wait_for(work, limit)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise ServiceError(
                504, "timeout", f"there was no answer in {limit:g} seconds"
            ) from error
        return model, result, warnings

    async def _heard_and_answered(self, model, kind, uploads):
        heard = [await self.hear(upload, model) for upload in uploads]
        waves = [waveform for waveform, _ in heard]
        item = waves[0] if len(waves) == 1 else tuple(waves)
        seconds = sum(map(len, waves)) / model.sample_rate
        result = await model.ask(kind, item, seconds)
        return result, [one for _, warnings in heard for one in warnings]

    @contextmanager
    def stream(self):
        """A place for one stream.

        Raises
        ------
        ServiceError
            With status 429 if there is none.
        """
        if self.streams >= self.settings.max_streams:
            raise ServiceError(429, "too_many_streams", "as many streams as may be are open")
        self.streams += 1
        self.metrics.streams.set(self.streams)
        try:
            yield
        finally:
            self.streams -= 1
            self.metrics.streams.set(self.streams)


def create_app(settings):
    """The application of some settings; its models are loaded here.

    Arguments
    ---------
    settings : mamba_speech.serving.settings.Settings

    Returns
    -------
    fastapi.FastAPI

    Raises
    ------
    FileNotFoundError, RuntimeError, ValueError
        If a model cannot be loaded.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app):
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="mamba-speech",
        version=__version__,
        description="Recognition, separation, keywords and speakers with models of this project.",
        lifespan=lifespan,
        responses=FAULTS,
    )
    app.state.service = service
    _add_tasks(app, service)
    _add_state(app, service)
    app.include_router(openai_api.router(service))
    app.include_router(streams.router(service))
    if settings.page:
        _add_page(app)
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    known = {*app.openapi()["paths"], *OPEN_PATHS}
    app.add_middleware(
        Guard,
        settings=settings,
        metrics=service.metrics,
        paths=lambda path: path if path in known else "unknown",
    )
    return app


def _add_tasks(app, service):
    @app.post("/transcribe", response_model_exclude_none=True)
    async def transcribe(
        file: Recording,
        model: ModelName = None,
        word_times: Annotated[bool, Form(description="Start and end of each word")] = False,
    ) -> Transcription:
        """Write down what is said."""
        kind = ("transcribe", word_times)
        served, result, warnings = await service.answer("transcribe", model, kind, file)
        return transcription_of(served.name, result, warnings)

    @app.post(
        "/separate",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}, "audio/wav": {}}}},
    )
    async def separate(
        file: Recording,
        model: ModelName = None,
        speaker: Annotated[
            int | None, Form(ge=1, description="One speaker as WAV; default: all, in a ZIP file")
        ] = None,
    ):
        """Write each speaker of a recording into a file of its own."""
        served = choose_model(service.models, "separate", model)
        most = served.model.num_spks
        if speaker is not None and speaker > most:
            raise ServiceError(422, "invalid_request", f"speaker: must be from 1 to {most}")
        _, result, _ = await service.answer("separate", model, ("separate",), file)
        if speaker is None:
            content = await run_in_threadpool(zipped, result)
            return Response(content, media_type="application/zip")
        source = result.sources[:, speaker - 1].numpy()
        content = await run_in_threadpool(as_wav, source, result.sample_rate)
        return Response(content, media_type="audio/wav")

    @app.post("/spot")
    async def spot(
        file: Recording,
        model: ModelName = None,
        threshold: Annotated[float, Form(ge=0, le=1, description="Least confidence")] = 0.5,
    ) -> Keywords:
        """Report keywords with their times."""
        kind = ("spot", threshold)
        served, result, warnings = await service.answer("spot", model, kind, file)
        events = [
            {"label": one.label, "start": one.start, "end": one.end, "confidence": one.confidence}
            for one in result.events
        ]
        return Keywords(model=served.name, seconds=result.seconds, events=events, warnings=warnings)

    @app.post("/verify")
    async def verify(first: Recording, second: Recording, model: ModelName = None) -> Verification:
        """Say whether two recordings are of one speaker."""
        kind = ("verify",)
        served, result, warnings = await service.answer("verify", model, kind, first, second)
        told = {"score": result.score, "same": result.same, "threshold": result.threshold}
        return Verification(model=served.name, warnings=warnings, **told)

    @app.post("/embed")
    async def embed(file: Recording, model: ModelName = None) -> Embedding:
        """The embedding of a speaker."""
        served, result, warnings = await service.answer("embed", model, ("embed",), file)
        told = {"seconds": result.seconds, "embedding": result.vector.tolist()}
        return Embedding(model=served.name, warnings=warnings, **told)


def _add_state(app, service):
    @app.get("/health")
    async def health() -> State:
        """Whether the process is alive."""
        return State(status="ok")

    @app.get("/ready")
    async def ready() -> State:
        """Whether requests are answered."""
        if not service.ready:
            raise ServiceError(503, "shutting_down", "the service is shutting down")
        return State(status="ok")

    @app.get("/models")
    async def models() -> Models:
        """The models and their tasks."""
        told = [
            {"name": one.name, "task": one.task, "sample_rate": one.sample_rate}
            for one in service.models.values()
        ]
        return Models(models=told)

    @app.get("/metrics", response_class=Response)
    async def metrics():
        """Counts in Prometheus' text format."""
        for model in service.models.values():
            service.metrics.waiting.labels(model=model.name).set(model.batcher.waiting)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_page(app):
    folder = Path(__file__).with_name("page")

    @app.get("/", response_class=FileResponse, include_in_schema=False)
    async def page():
        return FileResponse(folder / "index.html")

    app.mount("/page", StaticFiles(directory=folder))


async def _told(request: Request, error):
    """The answer to what is refused: a code and a sentence."""
    if not isinstance(error, ServiceError):
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "bad_request")
        error = ServiceError(error.status_code, code, str(error.detail), error.headers)
    return JSONResponse(error.body(), error.status, error.headers)


async def _invalid(request: Request, error):
    """The first fault of a request's values, in a sentence."""
    fault = error.errors()[0]
    name = ".".join(map(str, fault["loc"][1:])) or "the request"
    return await _told(request, ServiceError(422, "invalid_request", f"{name}: {fault['msg']}"))


def _copy(source, path):
    with open(path, "wb") as file:
        shutil.copyfileobj(source, file)
