"""Bounds what connections cost: how many there are, and of one host; how long one may be without a
request, and how long a client may leave its answer unread.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

from aiohttp import web

from services.gateway.http.handler import Handler, Instead
from services.gateway.http.shown import peer_at
from services.runtime.doorkeeping import host_of


class Connections:
    """Of one HTTP port. One more than `max_connections` is closed at once, as is one more than
    `max_host_connections` of a host, and one whose first request has not begun within
    `request_seconds`; aiohttp ends those that are idle between two.

    `instead` and `options` are a `Handler`'s.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        max_host_connections: int,
        request_seconds: float,
        instead: Instead,
        **options: Any,
    ) -> None:
        self._max_connections = max_connections
        self._max_host_connections = max_host_connections
        self._request_seconds = request_seconds
        self._options: dict[str, Any] = {"instead": instead, **options}
        self._by_host: Counter[str] = Counter()
        self._unheard: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def accept(self, server: web.Server) -> asyncio.BaseProtocol:
        """What a client who connects speaks to at first."""
        return _Arriving(self, server)

    def arrived(self, server: web.Server, transport: asyncio.Transport) -> None:
        """A connection is there: many can be that were accepted at one go."""
        host = host_of(peer_at(transport))
        if (
            len(server.connections) >= self._max_connections
            or self._by_host[host] >= self._max_host_connections
        ):
            transport.abort()
            return
        self._by_host[host] += 1
        handler = Handler(server, lost=partial(self._lost, host), **self._options)
        self._unheard[handler] = asyncio.get_running_loop().call_later(
            self._request_seconds, self._end, handler
        )
        transport.set_protocol(handler)
        handler.connection_made(transport)

    def heard(self, request: web.BaseRequest) -> None:
        """A connection has a request. What is written to it from now on counts as sent when the
        system has it: what would stay with us could keep a closed connection from ending.
        """
        if request.transport is not None:
            # Not 0: a transport with TLS is full then before anything is written.
            request.transport.set_write_buffer_limits(1)
        self._forget(request.protocol)

    def _lost(self, host: str, handler: web.RequestHandler) -> None:
        self._forget(handler)
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]

    def _forget(self, handler: web.RequestHandler) -> None:
        timer = self._unheard.pop(handler, None)
        if timer is not None:
            timer.cancel()

    def _end(self, handler: web.RequestHandler) -> None:
        del self._unheard[handler]
        handler.force_close()


class _Arriving(asyncio.Protocol):
    """Of a connection that is being made, with TLS for a while."""

    def __init__(self, connections: Connections, server: web.Server) -> None:
        self._connections = connections
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's; uvloop's is of no class of asyncio's.
        self._connections.arrived(self._server, cast(asyncio.Transport, transport))


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
