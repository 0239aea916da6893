"""The HTTP port's life: listen, serve, drain beside gRPC, stop."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from services.gateway.http.asked import read_chat, read_detokenize, read_text, read_tokenize
from services.gateway.http.door import Door
from services.gateway.http.generate import GenerateRoutes
from services.gateway.http.inside import Inside
from services.gateway.http.status import StatusRoutes
from services.gateway.http.tls import server_context
from services.gateway.http.tokens import TokenRoutes
from services.gateway.methods import DETOKENIZE, GENERATE, GET_MODEL, TOKENIZE
from services.runtime.server import PortInUse
from services.runtime.tls_files import TlsFiles

# Of connections that have not been taken yet.
BACKLOG = 1024
# For handlers that are cancelled to end.
CANCEL_SECONDS = 0.1


class HttpServer:
    """An HTTP port that is open."""

    def __init__(self, port: int, door: Door, drain_seconds: float) -> None:
        self.port = port
        self._door = door
        self._drain_seconds = drain_seconds
        self._drained_by: float | None = None

    def begin_draining(self) -> None:
        """Refuse what is new from now on, and let what is under way finish in time."""
        self._door.is_draining = True
        self._drained_by = asyncio.get_running_loop().time() + self._drain_seconds

    async def until_drained(self) -> None:
        """Return when nothing is under way, or the time for it is up."""
        if self._drained_by is None:
            self.begin_draining()
        assert self._drained_by is not None
        remaining = self._drained_by - asyncio.get_running_loop().time()
        await self._door.until_idle(max(0.0, remaining))


def application(inside: Inside, door: Door, status: StatusRoutes) -> web.Application:
    """All routes."""
    generate, tokens = GenerateRoutes(inside), TokenRoutes(inside)
    app = web.Application(middlewares=[door.middleware])
    app.on_response_prepare.append(door.add_headers)
    app.add_routes(
        [
            web.post("/v1/chat/completions", door.working(GENERATE, read_chat, generate.answer)),
            web.post("/v1/completions", door.working(GENERATE, read_text, generate.answer)),
            web.post("/tokenize", door.working(TOKENIZE, read_tokenize, tokens.tokenize)),
            web.post("/detokenize", door.working(DETOKENIZE, read_detokenize, tokens.detokenize)),
            web.get("/v1/models", door.looking(GET_MODEL, status.models)),
            web.get("/v1/models/{name:.+}", door.looking(GET_MODEL, status.model)),
            web.get("/load", door.looking(GET_MODEL, status.load)),
            web.get("/metrics", door.looking(GET_MODEL, status.metrics)),
            web.get("/openapi.json", door.looking(GET_MODEL, status.openapi)),
            web.get("/health", status.health),
            web.get("/ping", status.health),
            web.post("/ping", status.health),
            web.get("/version", status.version),
        ]
    )
    return app


@asynccontextmanager
async def serving_http(
    app: web.Application,
    door: Door,
    *,
    listen: str,
    drain_seconds: float,
    tls: TlsFiles | None = None,
    needs_certificate: bool = False,
) -> AsyncIterator[HttpServer]:
    """Serve on `listen` until the block ends, then let what is under way finish, within
    `drain_seconds` of when draining began.

    Raises PortInUse when the address cannot be listened on, BadState when certificates cannot be
    used.
    """
    # Not above: see services/runtime/server.py.
    from services.runtime.native_server.listening import listen_on

    context = None if tls is None else server_context(tls, needs_certificate=needs_certificate)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,  # a client that leaves gives up what it asked for
        shutdown_timeout=CANCEL_SECONDS,
    )
    await runner.setup()
    try:
        try:
            listeners = listen_on(listen)
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {listen} for HTTP: the port is in use or the address is not "
                "this machine's; --http-listen names another one, and nothing for none"
            ) from error
        server = HttpServer(listeners[0].getsockname()[1], door, drain_seconds)
        async with _accepting(runner, door, listeners, context):
            try:
                yield server
            finally:
                await server.until_drained()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _accepting(
    runner: web.AppRunner,
    door: Door,
    listeners: Sequence[socket.socket],
    context: ssl.SSLContext | None,
) -> AsyncIterator[None]:
    """Take connections until the block ends."""
    server = runner.server
    assert server is not None, "it was set up"
    loop = asyncio.get_running_loop()
    accepting = [
        await loop.create_server(
            partial(door.connections.accept, server), sock=listener, ssl=context, backlog=BACKLOG
        )
        for listener in listeners
    ]
    try:
        yield
    finally:
        for one in accepting:
            one.close()
