"""Sends traces and metrics out where they are asked for, and is silent and free where
they are not.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

from services.runtime.metrics_server import serve_metrics
from services.runtime.otlp.delivery import Delivery
from services.runtime.otlp.metric_exporter import DeliveredMetrics
from services.runtime.otlp.resource import describe_process
from services.runtime.otlp.settings import Telemetry
from services.runtime.span_outbox import SpanOutbox
from services.runtime.tracing import Recorder, recording_with
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# A collector that is gone must not hold up the end of a process.
FLUSH_SECONDS = 5.0


@contextmanager
def configure_telemetry(
    service_name: str,
    instance: str,
    telemetry: Telemetry,
    *,
    metrics_at: tuple[str, int] | None,
    shows_metrics: bool = False,
    flush_seconds: float = FLUSH_SECONDS,
) -> Iterator[None]:
    """Install what the process records into; flush it within `flush_seconds` when the block ends.

    Traces and metrics go where `telemetry` says; with `metrics_at`, host and port, metrics are
    served to Prometheus there; a process that `shows_metrics` serves them by itself. With none of
    these nothing is installed and recording does nothing, as
    where all is disabled. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before `service_name`
    and `instance`. Raises ServingError when the metrics port cannot be listened on. To be entered
    once in a process's life.
    """
    for remark in telemetry.remarks:
        logger.warning("%s", remark)
    resource = describe_process(service_name, instance, telemetry.attributes)
    deliveries: list[Delivery] = []
    shutdowns: list[Callable[[], object]] = []
    readers = _metric_readers(telemetry, metrics_at, deliveries)
    if not telemetry.is_disabled and (shows_metrics or metrics_at is not None):
        readers.append(PrometheusMetricReader(scope_info_enabled=False))
    if readers:
        exemplars = telemetry.metric_settings.exemplar_filter
        meters = MeterProvider(readers, resource, exemplars, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        shutdowns.append(meters.shutdown)
    with ExitStack() as stack:
        if telemetry.traces is not None:
            deliveries.append(Delivery(telemetry.traces))
            outbox = SpanOutbox(resource, deliveries[-1])
            stack.enter_context(recording_with(Recorder(outbox.put, telemetry.sampler)))
            shutdowns.append(outbox.close)
        try:
            yield
        finally:
            for delivery in deliveries:
                delivery.hurry()
            _within(flush_seconds, shutdowns)


def _metric_readers(
    telemetry: Telemetry, metrics_at: tuple[str, int] | None, deliveries: list[Delivery]
) -> list[MetricReader]:
    readers: list[MetricReader] = []
    settings = telemetry.metric_settings
    if telemetry.metrics is not None:
        deliveries.append(Delivery(telemetry.metrics))
        exporter = DeliveredMetrics(deliveries[-1], settings)
        readers.append(
            PeriodicExportingMetricReader(
                exporter, settings.interval_millis, settings.timeout_millis
            )
        )
    if metrics_at is None:
        return readers
    host, port = metrics_at
    if telemetry.is_disabled:
        logger.warning("OTEL_SDK_DISABLED: no metrics on port %d either", port)
    else:
        try:
            serve_metrics(port, host)
        except OSError as error:
            raise ServingError(
                f"cannot serve metrics on port {port} of {host}: {error.strerror}"
            ) from error
        logger.info("metrics on port %d of %s", port, host)
    return readers


def _within(seconds: float, shutdowns: list[Callable[[], object]]) -> None:
    """Run all of them at once, each in a thread that may be left behind.

    A collector that hangs takes as long as its timeout.
    """
    threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in shutdowns]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        logger.warning("telemetry was not flushed within %g s", seconds)
