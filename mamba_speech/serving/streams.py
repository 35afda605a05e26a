"""Live text and keywords over a WebSocket.

A client sends a JSON message ``{"type": "start", "model": NAME, "sample_rate": 16000}``, with ``threshold`` for a
keyword spotter. Then it sends PCM of 16 bits (little endian, one channel) in binary messages of any length, and
``{"type": "end"}``. It gets JSON messages: ``ready``,
``partial``, ``final``, ``endpoint``, ``keyword``, ``end``, ``error``.
"""

import asyncio
import json
import queue
import threading

import numpy as np
import torch
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from mamba_speech.audio import BlockResampler
from mamba_speech.kws.events import THRESHOLD
from mamba_speech.run_task import STREAMING
from mamba_speech.serving.answers import word_of
from mamba_speech.serving.errors import ServiceError
from mamba_speech.serving.guard import bearer, check_key
from mamba_speech.serving.models import choose_model

# close codes of RFC 6455 and its registry
POLICY_VIOLATION, TRY_AGAIN_LATER, NORMAL = 1008, 1013, 1000
# hertz that a client may send
RATES = (4000, 192_000)
# bytes of a message
MOST_BYTES = 4 * 2**20


def router(service):
    """The path ``/stream``.

    Arguments
    ---------
    service : mamba_speech.serving.app.Service

    Returns
    -------
    fastapi.APIRouter
    """
    paths = APIRouter()

    @paths.websocket("/stream")
    async def stream(socket: WebSocket):
        await socket.accept()
        code = NORMAL
        try:
            with service.stream():
                await asyncio.wait_for(_serve(socket, service), service.settings.stream_seconds)
        except WebSocketDisconnect:
            return
        except (TimeoutError, asyncio.TimeoutError):
            limit = f"{service.settings.stream_seconds:g}"
            code = await _refuse(socket, "timeout", f"a stream may last {limit} seconds")
        except ServiceError as error:
            code = await _refuse(socket, error.code, error.message)
            if error.status in (429, 503):
                code = TRY_AGAIN_LATER
        await socket.close(code)

    return paths


async def _refuse(socket, code, message):
    await socket.send_json({"type": "error", "code": code, "message": message})
    return POLICY_VIOLATION


async def _serve(socket, service):
    """One stream, from its first message to its end."""
    start = await _message(socket, service)
    if not isinstance(start, dict) or start.get("type") != "start":
        raise ServiceError(
            400, "no_start", 'the first message must be {"type": "start", "sample_rate": HERTZ}'
        )
    given = start.get("api_key") or bearer(socket.headers.get("authorization", "").encode())
    check_key(service.settings, given if isinstance(given, str) else "")
    model = choose_model(service.models, "stream", start.get("model"))
    rate = _rate(start.get("sample_rate", model.sample_rate))
    resample = BlockResampler(rate, model.sample_rate)
    live = LiveText(model) if model.task == STREAMING else LiveKeywords(model, _threshold(start))
    await socket.send_json({"type": "ready", "model": model.name, "task": model.task})
    samples = 0
    try:
        while True:
            message = await _message(socket, service)
            if isinstance(message, dict):
                if message.get("type") == "end":
                    break
                raise ServiceError(400, "bad_message", 'only {"type": "end"} may follow the start')
            piece = _samples(message)
            samples += len(piece)
            block = resample(piece[None])[0]
            await _send(socket, await live.hear(block))
        await _send(socket, await live.hear(resample.finish()[0]))
        await _send(socket, await live.finish())
        await socket.send_json({"type": "end", "seconds": samples / rate})
    finally:
        live.close()
    service.metrics.audio.labels(model=model.name).inc(samples / rate)


async def _send(socket, messages):
    for message in messages:
        await socket.send_json(message)


async def _message(socket, service):
    """The next message: bytes, or what its JSON says.

    Raises
    ------
    ServiceError
        If none comes in time, or it is too long or no JSON.
    """
    limit = service.settings.stream_idle_seconds
    try:
        message = await asyncio.wait_for(socket.receive(), limit)
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise ServiceError(408, "idle", f"no message came in {limit:g} seconds") from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    if (content := message.get("bytes")) is not None:
        if len(content) > MOST_BYTES:
            raise ServiceError(413, "message_too_large", f"send at most {MOST_BYTES} bytes at once")
        return content
    try:
        return json.loads(message["text"])
    except ValueError as error:
        raise ServiceError(400, "bad_message", "a text message must be JSON") from error


def _rate(value):
    low, high = RATES
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ServiceError(
            422, "invalid_request", f"sample_rate must be a whole number from {low} to {high}"
        )
    return value


def _threshold(start):
    value = start.get("threshold", THRESHOLD)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ServiceError(422, "invalid_request", "threshold must be a number from 0 to 1")
    return value


def _samples(content):
    """PCM of 16 bits as a waveform (samples,)."""
    if len(content) % 2:
        raise ServiceError(
            400, "bad_message", "a binary message must hold whole samples of 16 bits"
        )
    return torch.from_numpy(np.frombuffer(content, "<i2").astype(np.float32) / 32768)


class LiveText:
    """A stream of words.

    Arguments
    ---------
    model : mamba_speech.serving.models.ServedModel
    """

    def __init__(self, model):
        self.model, self.context, self.partial = model, model.live.make_context(), ""

    async def hear(self, block):
        """Messages on the next samples (samples,)."""
        return self._told(
            await self.model.batcher.call(self.model.live.listen, block, self.context)
        )

    async def finish(self):
        """Messages at the end."""
        return self._told(await self.model.batcher.call(self.model.live.finish, self.context))

    def close(self):
        """Nothing is left over."""

    def _told(self, updates):
        messages = []
        for update in updates:
            if update.final:
                words = [word_of(one) for one in update.final]
                messages.append({"type": "final", "text": update.final_text, "words": words})
            if update.partial != self.partial or update.final:
                messages.append({"type": "partial", "text": update.partial})
                self.partial = update.partial
            if update.endpoint:
                messages.append({"type": "endpoint"})
        return messages


class LiveKeywords:
    """A stream of keywords, in a thread of its own.

    Arguments
    ---------
    model : mamba_speech.serving.models.ServedModel
    threshold : float
        Least confidence of a keyword.
    """

    def __init__(self, model, threshold):
        self.threshold = threshold
        self._blocks, self._found = queue.Queue(), []
        self._taken, self._fault = queue.Queue(), None
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=(model.model,), daemon=True)
        self._thread.start()

    async def hear(self, block):
        """Messages on the next samples (samples,)."""
        self._blocks.put(block)
        # until the samples are read, so that a client sends no more than the model hears
        await asyncio.to_thread(self._taken.get)
        return self._messages()

    async def finish(self):
        """Messages at the end."""
        self.close()
        await asyncio.to_thread(self._thread.join)
        return self._messages()

    def close(self):
        """End the thread."""
        if not self._ended:
            self._ended = True
            self._blocks.put(None)

    def _messages(self):
        if self._fault is not None:
            raise ServiceError(422, "unusable_audio", str(self._fault))
        found, self._found = self._found, []
        return [
            {"type": "keyword", "label": one.label, "start": one.start, "end": one.end}
            | {"confidence": one.confidence}
            for one in found
        ]

    def _run(self, spotter):
        try:
            for event in spotter.stream(self._given(), threshold=self.threshold):
                self._found.append(event)
        except (RuntimeError, ValueError) as error:
            self._fault = error
        finally:
            self._taken.put(None)

    def _given(self):
        first = True
        while True:
            if not first:
                self._taken.put(None)
            first = False
            block = self._blocks.get()
            if block is None:
                return
            yield block
