"""Runs one load: sends each request when it is due, and holds what came of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, islice

from services.cli.bench.lag import ClientLag
from services.cli.bench.loads import Bounds, ClosedLoop, OfferedLoad, OpenLoop, due_seconds
from services.cli.bench.sample import NANOS_PER_SECOND, Sample

# A user whose request failed looks at what the gateway said before trying again, but not for long:
# a load is to stay a load.
MIN_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0

Send = Callable[[Sample], Awaitable[None]]


class LoadRun:
    """A load, while it runs and afterwards; `samples` are in the order in which they were sent."""

    def __init__(self, load: OfferedLoad, bounds: Bounds, *, first_number: int = 0) -> None:
        self.load = load
        self.bounds = bounds
        self.samples: list[Sample] = []
        self.lag = ClientLag()
        self.began_nanos = time.monotonic_ns()
        self.ended_nanos: int | None = None
        self.num_ended = 0  # requests that were completed or failed
        self.num_failed = 0
        self._first_number = first_number

    @property
    def seconds(self) -> float:
        """From its beginning to its end, or until now."""
        ended_nanos = time.monotonic_ns() if self.ended_nanos is None else self.ended_nanos
        return (ended_nanos - self.began_nanos) / NANOS_PER_SECOND

    async def run(self, send: Send) -> None:
        """Send the requests until the bounds are reached and wait for the last answers.

        Cancelled, it gives up the requests in flight; what came until then stays in `samples`.
        """
        self.began_nanos = time.monotonic_ns()
        self.lag = ClientLag()
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self.lag.watch())
                if isinstance(self.load, ClosedLoop):
                    await self._closed(self.load, send)
                else:
                    await self._open(self.load, send)
                watching.cancel()
        finally:
            self.ended_nanos = self._last_nanos()
            self.lag.end()

    async def _closed(self, load: ClosedLoop, send: Send) -> None:
        numbers = islice(count(self._first_number), self.bounds.requests)
        async with asyncio.TaskGroup() as users:
            for _ in range(min(load.concurrency, self.bounds.requests or load.concurrency)):
                users.create_task(self._user(numbers, send))

    async def _user(self, numbers: Iterator[int], send: Send) -> None:
        while not self._is_over() and (number := next(numbers, None)) is not None:
            sample = await self._one(number, time.monotonic_ns(), send)
            if sample.failure is not None:
                advised = sample.failure.retry_after_seconds or 0.0
                await asyncio.sleep(min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, advised)))

    async def _open(self, load: OpenLoop, send: Send) -> None:
        slots = asyncio.Semaphore(load.max_in_flight)

        async def one(number: int, due_nanos: int) -> None:
            try:
                await self._one(number, due_nanos, send)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as requests:
            for number, seconds in enumerate(due_seconds(load, self.bounds), self._first_number):
                due_nanos = self.began_nanos + round(seconds * NANOS_PER_SECOND)
                await asyncio.sleep(max(0.0, (due_nanos - time.monotonic_ns()) / NANOS_PER_SECOND))
                await slots.acquire()
                requests.create_task(one(number, due_nanos))

    async def _one(self, number: int, due_nanos: int, send: Send) -> Sample:
        sample = Sample(number, due_nanos, time.monotonic_ns())
        self.samples.append(sample)
        await send(sample)
        self.num_ended += 1
        self.num_failed += sample.failure is not None
        return sample

    def _last_nanos(self) -> int:
        # When the last answer came: a user may still have paused after it. Broken off, it ends now.
        ended = [sample.ended_nanos for sample in self.samples if sample.ended_nanos is not None]
        return max(ended) if ended and len(ended) == len(self.samples) else time.monotonic_ns()

    def _is_over(self) -> bool:
        return self.bounds.seconds is not None and self.seconds >= self.bounds.seconds
