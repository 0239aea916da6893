"""What `moesaic top` makes of two looks at a cluster."""

import io
from dataclasses import asdict, replace
from typing import Any

import pytest
from rich.console import Console

from moesaic.v1 import common_pb2, placement_pb2, router_pb2
from services.cli.known import NOTHING_KNOWN, Known
from services.cli.top.figures import Figures, figures
from services.cli.top.gateway_metrics import GatewayMetrics, parse
from services.cli.top.look import Look
from services.cli.top.picture import picture
from services.cli.top.quantiles import quantile, since

SECOND = 10**9
METRICS = """\
# HELP gen_ai_server_time_to_first_token_seconds from a request's arrival to its first token
# TYPE gen_ai_server_time_to_first_token_seconds histogram
gen_ai_server_time_to_first_token_seconds_bucket{le="0.02",model="a"} 1.0
gen_ai_server_time_to_first_token_seconds_bucket{le="0.04",model="a"} 3.0
gen_ai_server_time_to_first_token_seconds_bucket{le="+Inf",model="a"} 4.0
gen_ai_server_time_to_first_token_seconds_bucket{le="0.02",model="b"} 1.0
gen_ai_server_time_to_first_token_seconds_bucket{le="0.04",model="b"} 1.0
gen_ai_server_time_to_first_token_seconds_bucket{le="+Inf",model="b"} 1.0
# TYPE moesaic_gateway_waiting_requests gauge
moesaic_gateway_waiting_requests 7.0
"""


def sent(address: str, **counts: int) -> placement_pb2.ServiceActivity:
    return placement_pb2.ServiceActivity(address=address, **counts)


def activity(clock: int, tokens: int, *services: Any, **more: Any) -> Any:
    more = {"instance": "one"} | more
    return placement_pb2.GetActivityResponse(
        clock_nanos=clock, drawn_tokens=tokens, services=services, **more
    )


def placement(*states: "router_pb2.ServiceState.ValueType") -> router_pb2.GetPlacementResponse:
    services = [
        router_pb2.PlacedService(
            address=f"10.100.200.{number}:50053",
            state=state,
            expert_memory_bytes=8 << 30,
            free_memory_bytes=3 << 30,
            layers=[router_pb2.HostedLayer(layer=0, experts=range(64))],
        )
        for number, state in enumerate(states)
    ]
    return router_pb2.GetPlacementResponse(services=services)


LIVE = router_pb2.SERVICE_STATE_LIVE
FIRST, SECOND_SERVICE = "10.100.200.0:50053", "10.100.200.1:50053"


def seen(*pairs: tuple[Any, Any], known: Known = NOTHING_KNOWN) -> Figures:
    placed = placement(LIVE, router_pb2.SERVICE_STATE_QUARANTINED)
    before, now = ({str(number): pair[at] for number, pair in enumerate(pairs)} for at in (0, 1))
    gateway = GatewayMetrics(2, {0.02: 1.0, 0.04: 9.0})
    return figures(Look(before, placed, GatewayMetrics()), Look(now, placed, gateway), known)


def one_router() -> Figures:
    before = activity(0, 100, sent(FIRST, frames=10, pairs=50, straggler_layers=5))
    now = activity(
        2 * SECOND,
        300,
        sent(
            FIRST,
            frames=30,
            pairs=250,
            straggler_layers=8,
            queue_nanos=20_000_000,
            compute_nanos=SECOND,
            median_wire_nanos=250_000,
            frames_in_flight=3,
        ),
        sent(SECOND_SERVICE, frames=1, pairs=1, straggler_layers=1),
        running_sequences=3,
        waiting_sequences=1,
        parts=common_pb2.PhaseReceipt(dense_nanos=60, wire_nanos=20, encode_nanos=20),
        token_gaps=[placement_pb2.TimeBucket(most_nanos=4_000_000, count=10)],
        loads=[placement_pb2.LayerLoad(layer=0, pairs=[0, 1, 2, 4], replicas=[1, 2, 0, 1])],
        operations=[
            router_pb2.ChangePlacementResponse(
                operation_id="drain-1",
                phase=router_pb2.OPERATION_PHASE_LOADING,
                num_done=3,
                num_total=9,
                loaded_bytes=1 << 20,
                total_bytes=5 << 20,
            )
        ],
    )
    return seen((before, now), known=Known({FIRST: "expert-0"}))


def test_rates_and_shares_are_those_of_the_interval() -> None:
    found = one_router()
    assert (found.tokens_per_second, found.running, found.waiting) == (100, 3, 1 + 2)
    assert found.communication_share == pytest.approx(0.4)
    assert found.first_token.p50 == pytest.approx(0.02 + 0.02 * 4 / 9)
    assert found.between_tokens.p99 == pytest.approx(0.00396)
    second, first = found.services  # by name
    assert (first.name, first.state, first.num_experts) == ("expert-0", "live", 64)
    assert (first.pairs_per_second, first.busy_share, first.queue_seconds) == (100, 0.5, 0.001)
    assert (first.straggler_share, first.wire_seconds, first.frames_in_flight) == (0.75, 0.00025, 3)
    assert (first.memory_bytes, first.memory_limit_bytes) == (5 << 30, 8 << 30)
    assert (second.name, second.state, second.straggler_share) == (
        SECOND_SERVICE,
        "quarantined",
        0.25,
    )


def test_routers_are_added_up() -> None:
    pair = (
        activity(0, 0, sent(FIRST)),
        activity(SECOND, 50, sent(FIRST, pairs=10, frames=1), running_sequences=2),
    )
    found = seen(pair, pair)
    assert (found.tokens_per_second, found.running) == (100, 4)
    assert found.services[0].pairs_per_second == 20


def test_a_router_that_began_anew_is_counted_from_nothing() -> None:
    before = activity(0, 1_000, sent(FIRST, pairs=999))
    now = activity(SECOND, 7, sent(FIRST, pairs=5), instance="two")
    found = seen((before, now))
    assert found.tokens_per_second == 7
    assert found.services[0].pairs_per_second == 5


def test_nothing_at_all_is_shown_as_nothing() -> None:
    found = seen((activity(0, 0), activity(SECOND, 0)))
    assert found.communication_share is None
    assert found.between_tokens.p50 is None
    assert "communication -" in shown(found)


def shown(found: Figures, *, width: int = 80, height: int | None = None) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(picture(found, width=width, height=height))
    return console.export_text()


def test_the_picture_says_it_all_in_eighty_columns() -> None:
    text = shown(one_router())
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "100 tokens/s   3 running, 3 waiting   communication 40%",
        "first token p50 29, p99 40 ms   between tokens p50 2.00, p99 3.96 ms",
        "expert-0",
        "layer 0  ··▃▃▅▅██  1x2, 2x0",
        "moving: drain-1 loading 3 of 9 experts, 1M of 5M",
    ):
        assert words in text


def test_large_models_fit_too() -> None:
    found = one_router()
    layer = replace(found.layers[0], pairs=[1.0] * 256, replicas=[1] * 256)
    service = replace(
        found.services[1], pairs_per_second=1234567.0, num_experts=12_288, queue_seconds=2.5
    )
    many = replace(found, services=[service] * 8, layers=[replace(layer, layer=58)] * 60)
    text = shown(many, height=40)
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 40
    assert "more layers" in text


def test_figures_are_plain_values_for_programs() -> None:
    document = asdict(one_router())
    assert document["layers"][0]["replicas"] == [1, 2, 0, 1]
    assert document["moves"][0]["phase"] == "loading"


def test_a_gateways_metrics_are_read_whatever_their_labels() -> None:
    assert parse(METRICS) == GatewayMetrics(7, {0.02: 2.0, 0.04: 2.0, float("inf"): 1.0})


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0.0}, 0.5, None),
        ({1.0: 10.0}, 0.5, 0.5),
        ({1.0: 1.0, 3.0: 1.0}, 0.75, 2.0),
        ({1.0: 1.0, float("inf"): 9.0}, 0.99, 1.0),
    ],
)
def test_quantiles_lie_within_their_bucket(
    buckets: dict[float, float], share: float, expected: float | None
) -> None:
    assert quantile(buckets, share) == expected


def test_counts_that_fell_are_those_of_another_life() -> None:
    assert since({1.0: 5.0}, {1.0: 2.0}) == {1.0: 2.0}
    assert since({1.0: 5.0}, {1.0: 7.0, 2.0: 1.0}) == {1.0: 2.0, 2.0: 1.0}
