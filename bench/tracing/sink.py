"""Receives traces as a collector does, and keeps them encoded until somebody looks."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.harness.failure import BenchFailed
from services.cli.members import LOOPBACK
from services.runtime.server import serving

TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"
# Services send what they have about once a second.
ARRIVE_SECONDS = 30.0


class SpanSink:
    """What came, as messages; `variables` make a service send here."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self._messages: list[bytes] = []
        self._news = asyncio.Event()

    def clear(self) -> None:
        """Forget what came so far."""
        self._messages.clear()

    def named(self, *names: str) -> list[Span]:
        """The spans of these names that came."""
        return [span for span in self._spans() if span.name in names]

    async def until(self, name: str, count: int) -> None:
        """Wait until so many spans of a name have come. Raises BenchFailed when they do not."""
        try:
            async with asyncio.timeout(ARRIVE_SECONDS):
                while len(self.named(name)) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BenchFailed(f"{len(self.named(name))} of {count} spans {name} came") from None

    def register(self, server: grpc.aio.Server) -> None:
        """Serve OTLP."""
        handlers = {
            TRACES: {"Export": grpc.unary_unary_rpc_method_handler(self._export_traces)},
            METRICS: {"Export": grpc.unary_unary_rpc_method_handler(self._export_metrics)},
        }
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(service, methods)
                for service, methods in handlers.items()
            ]
        )

    async def _export_traces(self, message: bytes, _: grpc.aio.ServicerContext) -> bytes:
        self._messages.append(message)
        self._news.set()
        return ExportTraceServiceResponse().SerializeToString()

    async def _export_metrics(self, _message: bytes, _: grpc.aio.ServicerContext) -> bytes:
        return ExportMetricsServiceResponse().SerializeToString()

    def _spans(self) -> Iterator[Span]:
        for message in self._messages:
            for resource in ExportTraceServiceRequest.FromString(message).resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans


@asynccontextmanager
async def span_sink() -> AsyncIterator[SpanSink]:
    """Receive until the block ends."""
    sink = SpanSink()
    async with serving(
        sink.register, listen=f"{LOOPBACK}:0", service_names=[], drain_seconds=0
    ) as port:
        sink.variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{port}"}
        yield sink
