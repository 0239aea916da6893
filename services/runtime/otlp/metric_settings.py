"""How metrics are gathered and put, as OpenTelemetry's variables say."""

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    Counter,
    ExemplarFilter,
    Histogram,
    ObservableCounter,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation

from services.runtime.otlp.variables import OtelVariables

EXEMPLAR_FILTERS = {
    "trace_based": TraceBasedExemplarFilter(),
    "always_on": AlwaysOnExemplarFilter(),
    "always_off": AlwaysOffExemplarFilter(),
}
# Which instruments tell what happened since the last time, instead of since the beginning.
DELTA: Mapping[str, tuple[type, ...]] = {
    "cumulative": (),
    "delta": (Counter, Histogram, ObservableCounter),
    "lowmemory": (Counter, Histogram),
}
EXPLICIT, EXPONENTIAL = "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
OWN = "OTEL_EXPORTER_OTLP_METRICS"


@dataclass(frozen=True)
class MetricSettings:
    """How often metrics are sent, how long that may take, and in which form."""

    interval_millis: float = 60_000
    timeout_millis: float = 30_000
    temporality: str = "cumulative"
    histograms: str = EXPLICIT
    exemplars: str = "trace_based"

    @classmethod
    def read(cls, variables: OtelVariables) -> "MetricSettings":
        """What the variables say."""
        return cls(
            variables.number(cls.interval_millis, "OTEL_METRIC_EXPORT_INTERVAL", least=1),
            variables.number(cls.timeout_millis, "OTEL_METRIC_EXPORT_TIMEOUT"),
            variables.preference(tuple(DELTA), cls.temporality, f"{OWN}_TEMPORALITY_PREFERENCE"),
            variables.preference(
                (EXPLICIT, EXPONENTIAL), EXPLICIT, f"{OWN}_DEFAULT_HISTOGRAM_AGGREGATION"
            ),
            variables.preference(
                tuple(EXEMPLAR_FILTERS), cls.exemplars, "OTEL_METRICS_EXEMPLAR_FILTER"
            ),
        )

    @property
    def exemplar_filter(self) -> ExemplarFilter:
        """Which measurements are kept as examples."""
        return EXEMPLAR_FILTERS[self.exemplars]

    @property
    def preferred_temporality(self) -> dict[type, AggregationTemporality]:
        """What instruments of each kind tell, where that is not what happened since the
        beginning.
        """
        return dict.fromkeys(DELTA[self.temporality], AggregationTemporality.DELTA)

    @property
    def preferred_aggregation(self) -> dict[type, Aggregation]:
        """How instruments of each kind sum up, where that is not the instrument's own way."""
        return (
            {Histogram: ExponentialBucketHistogramAggregation()}
            if self.histograms == EXPONENTIAL
            else {}
        )
