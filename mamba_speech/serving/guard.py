"""What stands before every request: size, key, counts, and a line of the log without audio or text."""

import hmac
import json
import logging
import time
import uuid

from starlette.responses import JSONResponse

from mamba_speech.serving.errors import ServiceError

logger = logging.getLogger("mamba_speech.serving")

# paths that need no key: whoever watches the service has none
OPEN_PATHS = ("/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico")


class Guard:
    """An ASGI middleware.

    Arguments
    ---------
    app : callable
        The ASGI application behind it.
    settings : mamba_speech.serving.settings.Settings
    metrics : mamba_speech.serving.metrics.Metrics
    paths : callable
        From a path to the name that counts it; unknown paths share one, so that no client makes names.
    """

    def __init__(self, app, settings, metrics, paths):
        self.app, self.settings, self.metrics, self.paths = app, settings, metrics, paths
        self.limit = int(settings.max_upload_mb * 2**20)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, name = time.monotonic(), self.paths(scope["path"])
        told = {"status": 500, "id": uuid.uuid4().hex, "started": False}

        async def counted_send(message):
            if message["type"] == "http.response.start":
                told["status"], told["started"] = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", told["id"].encode())]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._limited(receive), counted_send)
        except ServiceError as error:
            if not told["started"]:
                response = JSONResponse(error.body(), error.status, error.headers)
                await response(scope, receive, counted_send)
        finally:
            seconds = time.monotonic() - began
            self.metrics.requests.labels(path=name, status=str(told["status"])).inc()
            self.metrics.seconds.labels(path=name).observe(seconds)
            line = {"id": told["id"], "method": scope["method"], "path": name}
            line |= {"status": told["status"], "seconds": round(seconds, 4)}
            logger.info(json.dumps(line))

    def _check(self, scope):
        headers = dict(scope["headers"])
        path = scope["path"]
        if path not in OPEN_PATHS and not path.startswith("/page/"):
            check_key(self.settings, bearer(headers.get(b"authorization", b"")))
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limit:
            raise self._too_large()

    def _too_large(self):
        most = f"{self.settings.max_upload_mb:g}"
        return ServiceError(413, "upload_too_large", f"the upload is larger than {most} MB")

    def _limited(self, receive):
        """The body, which is refused as soon as it grows too large, whatever its headers say."""
        size = 0

        async def limited():
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.limit:
                raise self._too_large()
            return message

        return limited


def bearer(header):
    """The key of a header ``Authorization: Bearer KEY``; empty without one.

    Example
    -------
    >>> bearer(b"Bearer abc")
    'abc'
    """
    kind, _, key = header.decode("latin-1").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def check_key(settings, given):
    """Refuse a request without a key of the settings; without keys there, nothing is refused.

    Raises
    ------
    ServiceError
        With status 401.
    """
    # each is compared in full, so that time tells nothing
    matches = [
        hmac.compare_digest(given.encode(), key.get_secret_value().encode())
        for key in settings.api_keys
    ]
    if settings.api_keys and not any(matches):
        raise ServiceError(
            401,
            "invalid_api_key",
            "send a key of this service in the header Authorization: Bearer KEY",
            {"WWW-Authenticate": "Bearer"},
        )
