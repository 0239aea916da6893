"""A response of server-sent events: its headers wait for the first event, and what fails before it
is a status of HTTP.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from services.gateway.http.aiohttp_internals import hold_headers
from services.gateway.http.errors import failure_told
from services.runtime.boundary import PASSED_ON
from services.runtime.failures import failure_of

COMMENT = b": waiting\n\n"
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would keep events back
}


class EventStream:
    """Of one request; to be written to by one task, within `opened`. For `quiet_seconds` nothing is
    sent, for the status to be a true one; after that, and between two events, a comment keeps the
    connection.

    A client that reads slower than events come makes `write` wait, with what the system holds and
    little more before it.
    """

    def __init__(self, request: web.Request, *, quiet_seconds: float) -> None:
        self.response = web.StreamResponse(headers=HEADERS)
        hold_headers(self.response)
        # HTTP/1.0 has no chunks: the stream ends with its connection.
        self._has_chunks = request.version >= HttpVersion11
        if self._has_chunks:
            self.response.enable_chunked_encoding()
        else:
            self.response.force_close()
        self._request = request
        self._quiet_seconds = quiet_seconds
        self._beginning = asyncio.Lock()
        self._writer: AbstractStreamWriter | None = None  # once it has begun
        self._is_quiet = True
        self._last = b""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """For as long as the block lasts; after it the response is complete.

        What is raised before the first byte goes on as it is. Later it becomes an event, and the
        stream ends well: clients would take a connection that is cut for a loss, and `[DONE]`, or
        an end without a word, for a success.
        """
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        except PASSED_ON:
            raise
        except ConnectionError:  # the client left
            raise
        except BaseException as error:
            if self._writer is None:
                raise
            failure = failure_told(failure_of(error, "the request"))
            self._last = b"data: " + failure.body + b"\n\n"
        finally:
            keeping.cancel()
        await self._begin()
        await self.response.write_eof(self._last)

    async def write(self, events: bytes) -> None:
        """Send one event or several; the headers leave with the first."""
        self._is_quiet = False
        if self._writer is None:
            await self._begin()
            await self.response.write(events)
            return
        # What aiohttp's writer does, with a third of its work: this runs for each token.
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        transport.write(b"%x\r\n%b\r\n" % (len(events), events) if self._has_chunks else events)
        if self._request.protocol.writing_paused:
            await self._writer.drain()

    def end_with(self, events: bytes) -> None:
        """Have these be the last; they leave with the end, in one write."""
        self._last = events

    async def _begin(self) -> None:
        async with self._beginning:
            if self._writer is None:
                self._writer = await self.response.prepare(self._request)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._quiet_seconds)
            if self._is_quiet:
                try:
                    await self._begin()
                    await self.response.write(COMMENT)
                except ConnectionError:
                    return
            self._is_quiet = True
