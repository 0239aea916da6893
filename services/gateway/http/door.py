"""What every request over HTTP goes through: it is named, let in or refused, its body read within
limits, and its failure told.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from aiohttp import hdrs, web

from services.gateway.caller import Caller
from services.gateway.clients import Clients
from services.gateway.deadline import Deadline
from services.gateway.http.asked import Asked
from services.gateway.http.body_reader import BodyReader, Reading
from services.gateway.http.connections import Connections, cut_off_at
from services.gateway.http.cors import Cors
from services.gateway.http.errors import (
    TooLarge,
    UnknownRoute,
    WrongExpectation,
    WrongMethod,
    failure_told,
)
from services.gateway.http.handler import log_without_strangers
from services.gateway.http.pages import Pages, check_type
from services.gateway.http.shown import HttpShown
from services.gateway.http.visits import VISIT, Visit
from services.gateway.outside import said_outside
from services.gateway.refusals import Bound, refuse
from services.runtime.boundary import PASSED_ON
from services.runtime.doorkeeping import Doorkeeper
from services.runtime.failures import aside, failure_of
from services.wire.errors import DeadlinePassed, InvalidRequest, ServingError, Unavailable
from services.wire.quoting import quoted

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Read = TypeVar("Read", bound=Asked)
# Of a route with a body: it gets the caller and what the body asks for.
Work = Callable[[web.Request, Caller, Read], Awaitable[web.StreamResponse]]

# Of JSON a text may have three times the bytes that it has by itself: `\\u00e9` for two.
ESCAPED = 3
# Of all bodies that are being read.
MAX_HELD_BYTES = 256 << 20
# Beyond a request's deadline, for its failure to be told to a client that hardly reads.
TELLING_SECONDS = 10.0
RETRY_SECONDS = 1.0
# Of a connection without a request.
IDLE_SECONDS = 75.0


@dataclass(frozen=True)
class Limits:
    """Of a request over HTTP."""

    # Of its text, as it is known at the time.
    max_request_bytes: Callable[[], int]
    timeout_seconds: float
    # Until one that somebody sends is there, and until an answer in one piece is taken.
    request_seconds: float
    max_connections: int
    max_host_connections: int


class Door:
    """Of one gateway."""

    def __init__(
        self,
        clients: Clients,
        doorkeeper: Doorkeeper,
        limits: Limits,
        *,
        cors: Cors,
        pages: Pages,
        bodies: BodyReader,
        trace_url: str | None = None,
    ) -> None:
        self._clients = clients
        self._doorkeeper = doorkeeper
        self._limits = limits
        self._cors = cors
        self._pages = pages
        self._bodies = bodies
        self._trace_url = trace_url
        self.connections = Connections(
            max_connections=limits.max_connections,
            max_host_connections=limits.max_host_connections,
            request_seconds=limits.request_seconds,
            instead=self._instead,
            # Of aiohttp's handlers.
            access_log=None,
            auto_decompress=False,  # nobody's few bytes become many
            logger=log_without_strangers(),
            keepalive_timeout=IDLE_SECONDS,
        )
        self._held_bytes = 0
        self.is_draining = False
        self._num_working = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def check_open(self) -> None:
        """Raises Unavailable once what is new is refused."""
        if self.is_draining:
            raise Unavailable("the gateway is being stopped", retry_after_seconds=RETRY_SECONDS)

    def working(self, method: str, reading: Reading[Read], work: Work[Read]) -> Handler:
        """A route with a body, which is let in as the gRPC `method` is and counts as one of its
        calls. Its body is read by `reading`, one of asked.py's.
        """

        async def handle(request: web.Request) -> web.StreamResponse:
            self.check_open()
            shown = HttpShown(request)
            leave = self._doorkeeper.admit(method, shown)
            self._num_working += 1
            self._idle.clear()
            try:
                self._clients.check(method, shown)
                if request.body_exists:
                    check_type(request.headers)
                caller = self._caller(request, shown)
                async with cut_off_at(request, caller.deadline.at_seconds + TELLING_SECONDS):
                    return await work(request, caller, await self._asked(request, caller, reading))
            finally:
                leave()
                self._num_working -= 1
                if not self._num_working:
                    self._idle.set()

        return handle

    def looking(self, method: str, handler: Handler) -> Handler:
        """A route that tells something at once, to whom the gRPC `method` is open."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self._clients.check(method, HttpShown(request))
            return await handler(request)

        return handle

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around everything."""
        self.connections.heard(request)
        visit = request[VISIT] = Visit.begin(request)
        status, failed = None, None
        try:
            response = await self._answered(request, handler)
            status = response.status
            await self._send(request, response)
            return response
        except BaseException as error:
            failed = error
            raise
        finally:
            with aside("observing a request"):
                visit.end(status, failed)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """What every response has, added before it begins."""
        visit = request.get(VISIT)
        if visit is not None:
            visit.add_headers(response, trace_url=self._trace_url)
        self._cors.add_headers(request, response)

    async def until_idle(self, seconds: float) -> None:
        """Return when no work is left, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            with said_outside():
                self._pages.check(request)
                preflight = self._cors.preflight(request)
                return await handler(request) if preflight is None else preflight
        except web.HTTPException as error:  # aiohttp's own: no such route
            return _told(_of_aiohttp(error, request))
        except ConnectionError as error:  # the client left: nobody failed, and nobody can be told
            raise asyncio.CancelledError from error
        except PASSED_ON:
            raise
        except BaseException as error:  # noqa: BLE001 -- the boundary of HTTP: whatever it is becomes a document
            return _told(failure_of(error, "the request"))

    def _instead(
        self, request: web.BaseRequest, response: web.StreamResponse
    ) -> web.StreamResponse:
        """What no route was asked for: aiohttp has answered by itself."""
        if response.prepared:
            return response
        told, visit = _told(_of_status(response.status)), request.get(VISIT)
        if visit is None:  # else it has ended
            visit = Visit.begin(request)
            visit.end(told.status, None)
        visit.add_headers(told, trace_url=self._trace_url)
        if not response.keep_alive:
            told.force_close()
        return told

    async def _send(self, request: web.Request, response: web.StreamResponse) -> None:
        """Send what is not sent yet: aiohttp would wait for as long as its client likes."""
        try:
            async with cut_off_at(
                request, asyncio.get_running_loop().time() + self._limits.request_seconds
            ):
                await response.prepare(request)
                await response.write_eof()
        except ConnectionError as error:  # as above
            raise asyncio.CancelledError from error

    def _caller(self, request: web.Request, shown: HttpShown) -> Caller:
        goes_on = request[VISIT].passed_on
        return Caller(
            client=self._clients.client_of(shown),
            deadline=Deadline.after(self._limits.timeout_seconds),
            traceparent="" if goes_on is None else goes_on.traceparent,
            tracestate="" if goes_on is None else goes_on.tracestate,
        )

    async def _asked(self, request: web.Request, caller: Caller, reading: Reading[Read]) -> Read:
        body = bytearray()
        try:
            await self._receive(request, body)
            request[VISIT].arrived = time.monotonic_ns()
            said = self._bodies.read(reading, body, caller.client.name)
            return await caller.deadline.bound(said, "its body was read")
        finally:
            self._held_bytes -= len(body)

    async def _receive(self, request: web.Request, body: bytearray) -> None:
        """All of a request's body; what there is of it counts as held."""
        limit = ESCAPED * self._limits.max_request_bytes()
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
            raise InvalidRequest("the body must not be compressed")
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                async for part in request.content.iter_any():
                    body += part
                    self._held_bytes += len(part)
                    if len(body) > limit:
                        raise _too_large(limit)
                    if self._held_bytes > MAX_HELD_BYTES:
                        raise refuse(
                            Bound.CALLS,
                            "the bodies of other requests take all the room there is",
                            retry_after_seconds=RETRY_SECONDS,
                        )
        except TimeoutError:
            raise DeadlinePassed("the body did not come in time") from None
        except web.RequestPayloadError as error:
            raise InvalidRequest(f"the body cannot be read: {error}") from error


def _told(error: ServingError) -> web.Response:
    failure = failure_told(error)
    return web.Response(
        status=failure.status,
        body=failure.body,
        headers=failure.headers,
        content_type="application/json",
    )


def _of_aiohttp(error: web.HTTPException, request: web.Request) -> ServingError:
    where = f"{request.method} {request.path}"
    if isinstance(error, web.HTTPNotFound):
        return UnknownRoute(f"there is nothing at {quoted(where)}")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = " and ".join(sorted(error.allowed_methods))
        return WrongMethod(f"{quoted(where)} is not allowed; {allowed} is")
    return InvalidRequest(error.reason)


def _of_status(status: int) -> ServingError:
    if status == HTTPStatus.EXPECTATION_FAILED:
        return WrongExpectation("of what a request may expect, 100-continue alone is done")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return InvalidRequest("the request cannot be read: it is no HTTP/1.1")
    return ServingError("the request failed")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes, which is the limit")
