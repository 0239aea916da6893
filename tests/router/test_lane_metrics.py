"""The choice of lanes, its inputs and every count of steps can be read from the metrics."""

import pytest
import torch
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.router.engine import metrics
from services.router.lanes.choice import AutoLanes
from tests.router.scripted_engine import Heard, ScriptedTrunk, engine, order
from tests.router.test_lanes import NUM_LAYERS, REMOTE, Run


def read(reader: InMemoryMetricReader) -> dict[str, dict[tuple[tuple[str, object], ...], float]]:
    data = reader.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return {
        metric.name: {
            tuple((point.attributes or {}).items()): getattr(point, "value", 0) for point in points
        }
        for scope in scopes
        for metric in scope.metrics
        if (points := metric.data.data_points)
    }


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    reader = InMemoryMetricReader()
    monkeypatch.setattr(
        metrics, "meter", MeterProvider([reader], shutdown_on_exit=False).get_meter("test")
    )
    return reader


def test_the_choice_of_lanes_and_its_inputs_are_observed(reader: InMemoryMetricReader) -> None:
    lanes = AutoLanes(4, NUM_LAYERS)
    metrics.observe_lanes(lanes)
    Run(lanes).steps(500, REMOTE, 16)
    seen = read(reader)
    assert seen[metrics.LANES] == {(("reason", lanes.choice.why.value),): lanes.choice.lanes}
    assert set(seen[metrics.LANE_TOKEN_RATE]) >= {(("lanes", lanes.choice.lanes),)}
    assert seen[metrics.LAYER_COMMUNICATION][()] == pytest.approx(0.002)
    assert seen[metrics.LAYER_COMPUTE][()] > 0
    assert seen[metrics.CANDIDATE_LANES][()] >= 2


async def test_steps_are_counted(reader: InMemoryMetricReader) -> None:
    def act(step):  # type: ignore[no-untyped-def]
        step.clock.stragglers["a:1"] += 2
        step.clock.retries["a:1", "broken"] += 1
        step.clock.charge("dense")
        return torch.ones(len(step.drawing), 4)

    async with engine(ScriptedTrunk(act)) as running:
        heard = Heard()
        running.submit(order(prompt=3, new=5), heard)
        await heard.reason()
        seen = read(reader)
    assert seen[metrics.STEPS] == {(): 5}
    assert seen[metrics.DRAWN_TOKENS] == {(): 5}
    assert seen[metrics.STRAGGLERS] == {(("service", "a:1"),): 10}
    # All reasons that are known are there from the start, at zero.
    retried = {key: value for key, value in seen[metrics.RETRIES].items() if value}
    assert retried == {(("service", "a:1"), ("reason", "broken")): 5}
    assert seen[metrics.PART_SECONDS][(("part", "dense"),)] > 0
    assert seen[metrics.LANES] == {(("reason", "fixed"),): 1}
