"""The tracing service's life: open both ports, receive and show, stop."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from services.runtime.channels import split_address
from services.runtime.server import PortInUse, serving, until_told_to_stop
from services.tracing.http import query_app
from services.tracing.service import SERVICE_NAME, TraceService
from services.tracing.settings import TracingSettings
from services.tracing.store import SpanStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracing:
    """A tracing service whose ports are open: OTLP's and HTTP's."""

    port: int
    http_port: int
    store: SpanStore


async def run(
    settings: TracingSettings, *, on_ready: Callable[[int], Awaitable[None]] | None = None
) -> None:
    """Serve until told to stop; `on_ready` is called once, with OTLP's port, when both ports are
    open.

    Raises PortInUse when one of them cannot be listened on.
    """
    async with tracing(settings) as running:
        host, _, _ = settings.http.rpartition(":")
        logger.info("traces are shown on http://%s:%d", host, running.http_port)
        if on_ready is not None:
            await on_ready(running.port)
        await until_told_to_stop()


@asynccontextmanager
async def tracing(settings: TracingSettings) -> AsyncIterator[Tracing]:
    """Receive and show traces for as long as the block lasts."""
    store = SpanStore(max_traces=settings.max_traces, max_bytes=settings.max_bytes)
    async with (
        _showing(store, settings) as http_port,
        serving(
            TraceService(store).register,
            listen=settings.listen,
            service_names=[SERVICE_NAME],
            drain_seconds=settings.drain_seconds,
            tls=settings.tls,
        ) as port,
    ):
        yield Tracing(port, http_port, store)


@asynccontextmanager
async def _showing(store: SpanStore, settings: TracingSettings) -> AsyncIterator[int]:
    host, port = split_address(settings.http)
    runner = web.AppRunner(
        query_app(store), access_log=None, shutdown_timeout=settings.drain_seconds
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise PortInUse(f"cannot listen on {settings.http}: {error.strerror}") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
