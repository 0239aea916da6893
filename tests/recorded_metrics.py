"""What is measured, as a reader sees it: by instruments of one's own meter, or by all of this
process, which has one provider for good.
"""

from functools import cache

from opentelemetry import metrics
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)

Attributes = frozenset[tuple[str, object]]


def having(**attributes: object) -> Attributes:
    """Attributes as readings have them, with _ where their names have a dot."""
    return frozenset((name.replace("_", "."), value) for name, value in attributes.items())


class RecordedMetrics:
    """A meter and what its instruments measure; each reading has what was counted since the one
    before.
    """

    def __init__(self) -> None:
        since_the_last: dict[type, AggregationTemporality] = dict.fromkeys(
            (Counter, Histogram, ObservableCounter), AggregationTemporality.DELTA
        )
        self._reader = InMemoryMetricReader(since_the_last)
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def meter(self) -> Meter:
        """Whose instruments are read here."""
        return self.provider.get_meter("test")

    def read(self) -> dict[str, dict[Attributes, float]]:
        """Values by metric and attributes; those of histograms are their sums."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: {
                frozenset((point.attributes or {}).items()): _value_of(point)
                for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def _value_of(point: object) -> float:
    assert isinstance(point, NumberDataPoint | HistogramDataPoint)
    return point.value if isinstance(point, NumberDataPoint) else point.sum


@cache
def metrics_of_this_process() -> RecordedMetrics:
    """Those by the meters of all modules, of which the first one of a name is read."""
    recorded = RecordedMetrics()
    metrics.set_meter_provider(recorded.provider)
    return recorded
