"""Bounds what connections cost: how many there are, and how long one may be without a request."""

import asyncio

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
        """A connection has a request."""
        timer = self._unheard.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()

    def _end(self, connection: web.RequestHandler) -> None:
        del self._unheard[connection]
        connection.force_close()


class _Closed(asyncio.Protocol):
    """Of a client for whom there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
