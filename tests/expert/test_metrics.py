"""What is counted: every frame once, every pair once, each with what became of it."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from services.expert import metrics
from tests.expert.expert_client import Carrier, expert_service


async def test_frames_and_pairs_are_counted_by_outcome(
    olmoe: Path, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    monkeypatch.setattr(metrics, "_meter", meter)
    monkeypatch.setattr(metrics, "_frames", Counter())
    monkeypatch.setattr(metrics, "_pairs", Counter())
    monkeypatch.setattr(metrics, "_batches", Counter())
    monkeypatch.setattr(metrics, "SAMPLED_BATCHES", 1)
    monkeypatch.setattr(metrics, "_active_experts", meter.create_histogram(metrics.ACTIVE_EXPERTS))
    async with expert_service(olmoe, carrier, preload="0/2", expert_memory="1MiB") as service:
        stream, rows = service.open_stream(), torch.randn(2, 32)
        await stream.send(
            0, rows, [(0, 0), (1, 0), (1, 3)], weights=[1.0, 0.5, 0.5]
        )  # pairs count, not sums
        await stream.send(1, rows, [(0, 1), (1, 7), (1, 6)])
        await stream.send(2, rows, [(0, 0)], remaining_nanos=0)
        await stream.send(3, rows, [(0, 0)], layer=5)
        for _ in range(4):
            await stream.reply()
        recorded = points(reader)
        assert recorded[metrics.FRAMES] == {
            "computed": 1,
            "not_hosted": 1,
            "expired": 1,
            "invalid": 1,
        }
        assert recorded[metrics.PAIRS] == {"computed": 4, "not_hosted": 2, "expired": 1}
        assert recorded[metrics.BATCHES] in (
            {None: 1},
            {None: 2},
        )  # the two frames came together, or not
        assert recorded[metrics.HOSTED_EXPERTS] == {None: 12}
        assert recorded[metrics.MEMORY_USED] == {None: 12 * service.parts.bank.slot_bytes}
        assert recorded[metrics.MEMORY_LIMIT] == {None: 1 << 20}
        assert recorded[metrics.WAITING_PAIRS] == {None: 0}
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, dict[object, object]]:
    """Values by metric and outcome, of counters and gauges."""
    data = reader.get_metrics_data()
    assert data is not None
    recorded = data.resource_metrics[0].scope_metrics[0].metrics
    return {
        metric.name: {
            (point.attributes or {}).get("outcome"): point.value
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        }
        for metric in recorded
        if metric.name != metrics.ACTIVE_EXPERTS
    }
