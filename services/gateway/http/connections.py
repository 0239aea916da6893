"""Bounds what connections cost: how many there are, how long one may be without a request, and how
long a client may leave its answer unread.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class Connections:
    """Of one HTTP port. One more than `max_connections` is closed at once, as is one whose first
    request has not begun within `request_seconds`; aiohttp ends those that are idle between two.
    """

    def __init__(self, *, max_connections: int, request_seconds: float) -> None:
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._unheard: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def accept(self, server: web.Server) -> asyncio.BaseProtocol:
        """What speaks to a client who has connected."""
        if len(server.connections) >= self._max_connections:
            return _Closed()
        connection = server()
        self._unheard[connection] = asyncio.get_running_loop().call_later(
            self._request_seconds, self._end, connection
        )
        return connection

    def heard(self, request: web.BaseRequest) -> None:
        """A connection has a request. What is written to it from now on counts as sent when the
        system has it: what would stay with us could keep a closed connection from ending.
        """
        if request.transport is not None:
            request.transport.set_write_buffer_limits(0)
        timer = self._unheard.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()

    def _end(self, connection: web.RequestHandler) -> None:
        del self._unheard[connection]
        connection.force_close()


@asynccontextmanager
async def cut_off_at(request: web.BaseRequest, at_seconds: float) -> AsyncIterator[None]:
    """Close the connection of a request whose block goes on at that moment of the loop's clock: its
    client does not read.
    """
    try:
        async with asyncio.timeout_at(at_seconds):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not read") from None


class _Closed(asyncio.Protocol):
    """Of a client for whom there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
