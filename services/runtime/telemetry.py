"""Sends traces and metrics out where they are asked for, and is silent and free where they are not."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracer
from prometheus_client import start_http_server

from services.runtime.span_outbox import SpanOutbox
from services.runtime.tracing import Recorder, recording_with
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# A collector that is gone must not hold up the end of a process.
FLUSH_SECONDS = 5.0


@contextmanager
def configure_telemetry(service_name: str, instance: str, *, otlp: bool, metrics_port: int | None) -> Iterator[None]:
    """Install what the process records into, and flush it within FLUSH_SECONDS when the block ends.

    With `otlp` traces and metrics go to the endpoint that the OTEL_* variables name; with a `metrics_port`
    metrics are served to Prometheus there. With neither nothing is installed and recording does nothing.
    OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before `service_name` and `instance`.
    Raises ServingError when the metrics port cannot be listened on. To be entered once in a process's life.
    """
    own = {"service.namespace": "moesaic", "service.name": service_name, "service.instance.id": instance}
    resource = Resource.create(own).merge(OTELResourceDetector().detect())
    shutdowns: list[Callable[[], object]] = []
    readers = _metric_readers(otlp, metrics_port)
    if readers:
        meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        shutdowns.append(meters.shutdown)
    with ExitStack() as stack:
        # The SDK's provider knows what its variables say of sampling, and of being off.
        traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        if otlp and not isinstance(traces.get_tracer(__name__), NoOpTracer):
            outbox = SpanOutbox(resource)
            stack.enter_context(recording_with(Recorder(outbox.put, traces.sampler)))
            shutdowns.append(outbox.close)
        try:
            yield
        finally:
            _within(FLUSH_SECONDS, shutdowns)


def _metric_readers(otlp: bool, metrics_port: int | None) -> list[MetricReader]:
    readers: list[MetricReader] = []
    if otlp:
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    if metrics_port is not None:
        try:
            start_http_server(metrics_port)
        except OSError as error:
            raise ServingError(f"cannot serve metrics on port {metrics_port}: {error.strerror}") from error
        readers.append(PrometheusMetricReader())
        logger.info("metrics on port %d", metrics_port)
    return readers


def _within(seconds: float, shutdowns: list[Callable[[], object]]) -> None:
    """Run all of them at once, each in a thread that may be left behind.

    An exporter's own retries know no bound.
    """
    threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in shutdowns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    if any(thread.is_alive() for thread in threads):
        logger.warning("telemetry was not flushed within %g s", seconds)
