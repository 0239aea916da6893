"""OTLP's services: spans go into the store, metrics are taken and forgotten."""

import logging
from collections import Counter
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.runtime.failures import leave_aside
from services.tracing.spans import Source, is_identified, source_of
from services.tracing.store import SpanStore

SERVICE_NAME = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name

logger = logging.getLogger(__name__)


class TraceService(TraceServiceServicer):
    """Keeps the spans that processes export."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store

    def register(self, server: grpc.aio.Server) -> None:
        """Serve this on `server`, and OTLP's metrics service beside it."""
        for add, service in (
            (add_TraceServiceServicer_to_server, self),
            (add_MetricsServiceServicer_to_server, MetricsService()),
        ):
            untyped: Any = add
            untyped(service, server)

    async def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext,
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        refused = self._take(request)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if refused:
            response.partial_success.rejected_spans = refused.total()
            response.partial_success.error_message = ", ".join(
                f"{count} {why}" for why, count in refused.items()
            )
            logger.warning("refused spans: %s", response.partial_success.error_message)
        return response

    def _take(self, request: trace_service_pb2.ExportTraceServiceRequest) -> Counter[str]:
        """Keep what can be kept; the others are counted by why they are not."""
        refused: Counter[str] = Counter()
        for resource_spans in request.resource_spans:
            source = source_of(resource_spans.resource)
            for scope_spans in resource_spans.scope_spans:
                scope = (scope_spans.scope.name, scope_spans.scope.version)
                for span in scope_spans.spans:
                    if (why := self._refusal(source, scope, span)) is not None:
                        refused[why] += 1
        return refused

    def _refusal(self, source: Source, scope: tuple[str, str], span: Span) -> str | None:
        try:
            if not is_identified(span):
                return "spans without valid ids"
            return (
                None if self._store.add(source, scope, span) else "of traces as large as one may be"
            )
        except Exception as error:  # noqa: BLE001 -- the boundary of one span: others came with it
            leave_aside(error, "keeping a span")
            return "that cannot be kept"


class MetricsService(MetricsServiceServicer):
    """Forgets what it gets: a process exports traces and metrics to one endpoint, and would report
    this as missing.
    """

    async def Export(
        self,
        request: metrics_service_pb2.ExportMetricsServiceRequest,
        context: grpc.aio.ServicerContext,
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        return metrics_service_pb2.ExportMetricsServiceResponse()
