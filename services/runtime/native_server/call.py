"""One call: its requests, the task of its handler, its answer and its end."""

import asyncio
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol

import grpc

from services.runtime import call_headers
from services.runtime.failures import failure_of
from services.runtime.native_server.asked import Asked
from services.runtime.native_server.compression import decompressed
from services.runtime.native_server.context import CallContext
from services.runtime.native_server.limits import Limits
from services.runtime.native_server.metadata import fields_of
from services.runtime.native_server.requests import Requests
from services.wire.errors import Overloaded

TOO_MUCH_HELD = "more requests wait than may be held"
OK_TRAILERS = call_headers.trailers(grpc.StatusCode.OK, "")


class Stream(Protocol):
    """The call's stream of its connection. What is sent on one that is gone is dropped."""

    limits: Limits

    def send_headers(self, stream: int, block: bytes) -> None: ...
    def send_trailers(self, stream: int, block: bytes) -> None: ...
    def try_send(self, stream: int, message: bytes) -> bool:
        """Whether it was taken: not where too much is unsent, or the connection is over."""

    def flush_if_alone(self) -> None:
        """Write now what no other call could join."""

    def has_to_wait(self, stream: int) -> bool: ...
    async def has_room(self, stream: int) -> None: ...
    def pause(self, stream: int) -> None: ...
    def resume(self, stream: int, most: int) -> None: ...
    def count_held(self, change: int) -> bool: ...
    def own(self, task: "asyncio.Task[None]") -> None:
        """Be the one who waits for its end."""


class Call(CallContext):
    """Also the context that the handler is given."""

    def __init__(self, stream: int, connection: Stream, asked: Asked) -> None:
        method, shown, encoding, seconds, _ = asked
        super().__init__(shown, seconds)
        self._stream = stream
        self._connection = connection
        self._method = method
        self._encoding = encoding
        self._requests: Requests | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_begun = self._is_over = self._was_cancelled = False
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(seconds, self._end_late)
        if method.takes_stream:
            self._requests = Requests(
                connection.limits,
                lambda: connection.pause(stream),
                lambda most: connection.resume(stream, most),
                connection.count_held,
                self._decompressed,
            )
            self._start(self._requests)

    def take(self, message: bytes, *, is_compressed: bool = False) -> None:
        """A request came."""
        if self._is_over:
            return
        if self._requests is not None:
            if not self._requests.add(message, is_compressed=is_compressed):
                self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MUCH_HELD)
        elif self._task is None:
            self._start(message, is_compressed=is_compressed)
        else:
            self.end(grpc.StatusCode.UNIMPLEMENTED, "the call takes one request, and more came")

    def take_end(self) -> None:
        """No more requests come."""
        if self._requests is not None:
            self._requests.end()
        elif self._task is None:
            self.end(grpc.StatusCode.UNIMPLEMENTED, "the call takes one request, and none came")

    @property
    def num_waiting_bytes(self) -> int:
        """Of the requests that the handler has not taken."""
        return 0 if self._requests is None else self._requests.num_bytes

    def leave(self) -> None:
        """The client has given the call up, or is gone."""
        self._was_cancelled = True
        self._finish()

    def end(
        self,
        code: grpc.StatusCode,
        details: str,
        trailing: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        """Tell the client how it ended, unless it was told; a handler that still runs is
        cancelled.
        """
        if self._is_over:
            return
        self._code, self._details = code, details
        more = fields_of((*self._trailing, *trailing))
        if not self._has_begun:
            block = call_headers.refuse(code, details, more)
        elif code == grpc.StatusCode.OK and not details and not more:
            block = OK_TRAILERS
        else:
            block = call_headers.trailers(code, details, more)
        self._connection.send_trailers(self._stream, block)
        self._finish()

    async def write(self, message: Any) -> None:
        """Send a response; returns at once unless the client leaves too much unread."""
        await self._send(message)
        self._connection.flush_if_alone()
        while self._connection.has_to_wait(self._stream):
            await self._connection.has_room(self._stream)

    async def _send(self, message: Any) -> None:
        data = self._method.serialise(message)
        if len(data) > self._connection.limits.max_response_bytes:
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "a response is too long")
        self._begin(())
        while not self._connection.try_send(self._stream, data):
            self._check()
            await self._connection.has_room(self._stream)

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._check()
        self._begin(metadata)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        self._end_from_within(code, details, trailing_metadata)
        raise grpc.aio.AbortError

    def cancelled(self) -> bool:
        return self._was_cancelled

    def done(self) -> bool:
        return self._is_over

    def _check(self) -> None:
        if self._is_over:  # nobody can be told; the task is cancelled already
            raise asyncio.CancelledError

    def _begin(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        if self._has_begun or self._is_over:
            return
        self._has_begun = True
        more = fields_of(metadata)
        block = call_headers.response_headers(more) if more else call_headers.RESPONSE_HEADERS
        self._connection.send_headers(self._stream, block)

    def _start(self, requests: Requests | bytes, *, is_compressed: bool = False) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(requests, is_compressed))
        self._connection.own(self._task)

    async def _decompressed(self, message: bytes) -> bytes:
        """Apart from the loop, and one at a time for a call: little may become much."""
        most = self._connection.limits.max_request_bytes
        try:
            if not self._connection.count_held(len(message)):
                raise Overloaded(TOO_MUCH_HELD)
            return await asyncio.to_thread(decompressed, message, self._encoding, most)
        finally:
            self._connection.count_held(-len(message))

    async def _run(self, requests: Requests | bytes, is_compressed: bool) -> None:
        try:
            if is_compressed and isinstance(requests, bytes):
                requests = await self._decompressed(requests)
            response = await self._method.behaviour(requests, self)
            if not self._method.answers_stream and not self._is_over:
                await self._send(response)
            self._end_from_within(self._code, self._details)
        except grpc.aio.AbortError:
            pass  # the client was told
        except asyncio.CancelledError:
            self._end_from_within(grpc.StatusCode.CANCELLED, "the call was cancelled")
            raise
        except Exception as error:  # noqa: BLE001 -- behind the boundary: what could not be written
            failure = failure_of(error, "the call")
            self._end_from_within(failure.status, str(failure))

    def _end_from_within(
        self,
        code: grpc.StatusCode,
        details: str,
        trailing: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        self._task = None  # it ends by itself
        self.end(code, details, trailing)

    def _end_late(self) -> None:
        self.end(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _finish(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._requests is not None:
            self._requests.drop()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        for callback in self._done_callbacks:
            callback(self)
        self._done_callbacks.clear()
