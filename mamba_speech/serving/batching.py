"""Requests of one model in batches: what waits while the model works is taken together.

A model has one thread. A request that meets an idle model waits for others for some milliseconds. A request that finds
the queue full is refused at once, so that nobody waits for what cannot be answered in time.
"""

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mamba_speech.serving.errors import ServiceError


@dataclass(eq=False)
class _Request:
    """One request that waits: what is asked, how long it is, and where the answer goes."""

    item: object
    kind: object
    seconds: float
    answer: asyncio.Future
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Collects requests for a function that answers many at once.

    Arguments
    ---------
    answer : callable
        From a kind and a list of items to a list of results, of the same length and order. A result that is an
        exception is raised for its request alone.
    queue_size : int
        Requests that may wait.
    batch_seconds : float
        Seconds of audio of a batch, padding included; a longer request is a batch of its own.
    wait_ms : float
        Time that a request waits for others when nothing is at work.
    observe : callable, optional
        Called with the number of requests of each batch, and the seconds that it took.

    Example
    -------
    >>> async def twice(numbers):
    ...     batcher = Batcher(lambda kind, items: [2 * one for one in items], 8, 60.0, 1.0)
    ...     try:
    ...         return await asyncio.gather(*(batcher.submit(one, seconds=1.0) for one in numbers))
    ...     finally:
    ...         await batcher.close()
    >>> asyncio.run(twice([1, 2, 3]))
    [2, 4, 6]
    """

    def __init__(self, answer, queue_size, batch_seconds, wait_ms, observe=None):
        self.queue_size, self.batch_seconds, self.wait = queue_size, batch_seconds, wait_ms / 1000
        self._answer, self._observe = answer, observe or (lambda count, seconds: None)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting, self._worker, self._news = [], None, asyncio.Event()
        self._closing, self._mean_seconds = False, 1.0

    @property
    def waiting(self):
        """Requests that no batch has taken yet."""
        return len(self._waiting)

    async def submit(self, item, seconds, kind=None):
        """The answer to one request.

        Arguments
        ---------
        item : object
        seconds : float
            Length of the audio.
        kind : hashable
            Only requests of one kind share a batch.

        Raises
        ------
        ServiceError
            With status 429 if the queue is full, and 503 if the service is ending.
        """
        if self._closing:
            raise ServiceError(503, "shutting_down", "the service is shutting down: ask another")
        if len(self._waiting) >= self.queue_size:
            pause = max(1, math.ceil(self._mean_seconds * len(self._waiting)))
            raise ServiceError(
                429,
                "queue_full",
                f"{len(self._waiting)} requests are waiting already: try again in {pause} seconds",
                {"Retry-After": str(pause)},
            )
        loop = asyncio.get_running_loop()
        request = _Request(item, kind, seconds, loop.create_future())
        self._waiting.append(request)
        self._news.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        try:
            return await request.answer
        finally:
            # a client that has left waits no more
            if request in self._waiting:
                self._waiting.remove(request)

    async def call(self, function, *arguments):
        """Run a function in the model's thread, between batches."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    async def close(self):
        """Answer what waits, take no more."""
        self._closing = True
        self._news.set()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self):
        while True:
            while not self._waiting:
                if self._closing:
                    return
                self._news.clear()
                await self._news.wait()
            if len(self._waiting) == 1 and self.wait and not self._closing:
                await asyncio.sleep(self.wait)
            if batch := self._next_batch():
                await self._answer_batch(batch)

    def _next_batch(self):
        """The request that has waited longest, and those of its kind that are nearest to it in length."""
        if not self._waiting:
            return []
        first = self._waiting[0]
        others = [one for one in self._waiting[1:] if one.kind == first.kind]
        others.sort(key=lambda one: abs(one.seconds - first.seconds))
        batch, longest = [first], first.seconds
        for one in others:
            longest = max(longest, one.seconds)
            if longest * (len(batch) + 1) > self.batch_seconds:
                break
            batch.append(one)
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    async def _answer_batch(self, batch):
        began = time.monotonic()
        try:
            answers = await self.call(self._answer, batch[0].kind, [one.item for one in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, the service goes on
            answers = [error] * len(batch)
        seconds = time.monotonic() - began
        self._mean_seconds += 0.2 * (seconds / len(batch) - self._mean_seconds)
        self._observe(len(batch), seconds)
        for request, answer in zip(batch, answers, strict=True):
            if request.answer.done():
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)
