"""A tracing service on free ports, the processes that export to it, and its query API as a client
sees it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

from services.tracing.app import Tracing, tracing
from services.tracing.settings import TracingSettings

LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True)
class Client:
    """Asks the query API of one tracing service."""

    running: Tracing
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.running.http_port}"

    async def get(self, path: str, parameters: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """The status and the document."""
        async with self.session.get(f"{self.url}{path}", params=parameters) as response:
            return response.status, await response.json()

    async def data(self, path: str, **parameters: str) -> Any:
        """The answer's data, which has to be one."""
        status, document = await self.get(path, parameters)
        assert (status, document["errors"]) == (200, None)
        return document["data"]

    async def export(self, service: str, record: Callable[[Tracer], None]) -> None:
        """Record spans as a process of the service would, and send them by the SDK's
        own exporter.
        """
        resource = Resource({"service.name": service, "service.instance.id": f"{service}-1"})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{self.running.port}", insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        record(provider.get_tracer("test", "1.0"))
        await asyncio.to_thread(provider.shutdown)


@asynccontextmanager
async def tracing_client(**settings: Any) -> AsyncIterator[Client]:
    """A tracing service and its client."""
    async with tracing(
        TracingSettings(listen=LOOPBACK, http=LOOPBACK, drain_seconds=0, **settings)
    ) as running:
        async with aiohttp.ClientSession() as session:
            yield Client(running, session)
