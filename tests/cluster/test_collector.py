"""A request's trace by way of a real collector, as the processes of a cluster send it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.runtime.server import serving
from tests.service_process import free_port

ROTEL = find_spec("rotel")
ROOT = Path(__file__).parents[2]
SECONDS = 60.0
CLIENT = "generate"

if ROTEL is None:
    pytest.skip(
        "the collector `rotel` is not installed: no wheel for this Python or system",
        allow_module_level=True,
    )


@dataclass
class Backend(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    """Where the collector passes on what it got: spans by their ids, each with its process's
    service and instance.
    """

    spans: dict[bytes, tuple[Span, str, str]] = field(default_factory=dict)
    metrics: dict[str, set[str]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def Export(self, request: Any, context: Any) -> Any:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                told = {one.key: one.value.string_value for one in resource.resource.attributes}
                names = told["service.name"], told["service.instance.id"]
                self.spans |= {
                    span.span_id: (span, *names)
                    for scope in resource.scope_spans
                    for span in scope.spans
                }
            self.news.set()
            return trace_service_pb2.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            told = {one.key: one.value.string_value for one in resource.resource.attributes}
            known = self.metrics.setdefault(told["service.name"], set())
            known |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
        self.news.set()
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def register(self, server: grpc.aio.Server) -> None:
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, server)

    async def until_whole(self, services: set[str]) -> None:
        """Wait until every one of these has sent spans, the cluster's metrics as well, and no span
        lacks its parent.
        """
        async with asyncio.timeout(SECONDS):
            while not self._is_whole(services):
                self.news.clear()
                await self.news.wait()

    def _is_whole(self, services: set[str]) -> bool:
        seen, parents = set(), set()
        for span, service, _ in self.spans.values():
            seen.add(service)
            parents.add(span.parent_span_id)
        return (
            services <= seen
            and services - {CLIENT} <= self.metrics.keys()
            and parents - {b""} <= self.spans.keys()
        )


@asynccontextmanager
async def collector(backend: Backend) -> AsyncIterator[str]:
    """A collector that passes everything on to the backend; yields its endpoint."""
    assert ROTEL is not None and ROTEL.submodule_search_locations is not None
    agent = Path(ROTEL.submodule_search_locations[0]) / "rotel-agent"
    async with serving(
        backend.register, listen="127.0.0.1:0", service_names=[], drain_seconds=0
    ) as port:
        address = f"127.0.0.1:{free_port()}"
        running = await asyncio.create_subprocess_exec(
            *(
                agent,
                "start",
                "--otlp-grpc-endpoint",
                address,
                "--otlp-http-endpoint",
                f"127.0.0.1:{free_port()}",
            ),
            *("--exporter", "otlp", "--otlp-exporter-protocol", "grpc", "--batch-timeout", "100ms"),
            *("--otlp-exporter-endpoint", f"http://127.0.0.1:{port}"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            yield f"http://{address}"
        finally:
            running.kill()
            await running.wait()


async def test_a_collector_gets_one_trace_from_the_command_line_to_every_expert_service() -> None:
    backend = Backend()
    async with collector(backend) as endpoint:
        running = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "services.cli.main",
                "generate",
                "--experts=2",
                "--max-new-tokens=2",
                "--ignore-eos",
            ),
            "Once upon a time",
            env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await running.wait() == 0
        services = {CLIENT, "gateway", "router", "expert-0", "expert-1"}
        await backend.until_whole(services)
    spans = backend.spans.values()
    assert len({span.trace_id for span, *_ in spans}) == 1
    assert len({(service, instance) for _, service, instance in spans}) == len(services)
    # Who calls whom, as a dependency graph is drawn: a client's span above a server's in another
    # service.
    calls = set()
    for span, service, _ in spans:
        if span.parent_span_id:
            above, caller, _ = backend.spans[span.parent_span_id]
            if caller != service:
                assert (above.kind, span.kind) == (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER)
                calls.add((caller, service))
    assert calls == {
        (CLIENT, "gateway"),
        ("gateway", "router"),
        ("router", "expert-0"),
        ("router", "expert-1"),
    }
    assert "moesaic.router.steps" in backend.metrics["router"]
    assert "moesaic.expert.frames" in backend.metrics["expert-1"]
