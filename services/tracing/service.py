"""OTLP's services: spans go into the store, metrics are taken and forgotten."""

import logging
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

from services.tracing.spans import is_identified, source_of
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
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.aio.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        unidentified, overflowed = self._take(request)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if unidentified or overflowed:
            response.partial_success.rejected_spans = unidentified + overflowed
            response.partial_success.error_message = (
                f"{unidentified} spans without valid ids, {overflowed} of traces as large as one may be"
            )
            logger.warning("refused spans: %s", response.partial_success.error_message)
        return response

    def _take(self, request: trace_service_pb2.ExportTraceServiceRequest) -> tuple[int, int]:
        unidentified = overflowed = 0
        for resource_spans in request.resource_spans:
            source = source_of(resource_spans.resource)
            for scope_spans in resource_spans.scope_spans:
                scope = (scope_spans.scope.name, scope_spans.scope.version)
                for span in scope_spans.spans:
                    if not is_identified(span):
                        unidentified += 1
                    elif not self._store.add(source, scope, span):
                        overflowed += 1
        return unidentified, overflowed


class MetricsService(MetricsServiceServicer):
    """Forgets what it gets: a process exports traces and metrics to one endpoint, and would report this as missing."""

    async def Export(
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: grpc.aio.ServicerContext
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        return metrics_service_pb2.ExportMetricsServiceResponse()
