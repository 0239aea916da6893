"""Sends the SDK's metrics by OTLP."""

from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from services.runtime.otlp.delivery import Delivery
from services.runtime.otlp.metric_settings import MetricSettings


class DeliveredMetrics(MetricExporter):
    """What a reader of metrics gives them to; closes the delivery in the end."""

    def __init__(self, delivery: Delivery, settings: MetricSettings) -> None:
        super().__init__(settings.preferred_temporality, settings.preferred_aggregation)
        self._delivery = delivery

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any
    ) -> MetricExportResult:
        """Send them now; the time that it takes is the delivery's own matter."""
        is_taken = self._delivery.deliver(lambda: encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS if is_taken else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Nothing is kept here."""
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        """Close the delivery."""
        self._delivery.close()
