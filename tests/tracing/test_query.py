"""The query API finds what it is asked for, as Jaeger's does, and says what it cannot be asked."""

import json
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestServer
from opentelemetry.trace import SpanKind, Tracer, set_span_in_context

from services.tracing.http import query_app
from services.tracing.query import nanos_in
from services.wire.errors import InvalidRequest
from tests.tracing.recorded_requests import record_request
from tests.tracing.tracing_client import Client, tracing_client

MILLI = 1_000_000
TRACE_ID = "ab" * 16
TRACE_ID = "ab" * 16
BEGAN = 1_700_000_000_000 * MILLI
# The hour in which everything here happened, in microseconds.
WHEN = {"start": str(BEGAN // 1000), "end": str(BEGAN // 1000 + 3_600_000_000)}


async def with_three_requests(client: Client) -> None:
    """Requests 0, 1 and 2 of the gateway, of 10, 20 and 30 ms, which each call the router twice."""
    parents = []

    def gateway(tracer: Tracer) -> None:
        for number in range(3):
            began = BEGAN + number * MILLI
            span = tracer.start_span(
                "generate", None, SpanKind.SERVER, {"number": number}, start_time=began
            )
            parents.append(set_span_in_context(span))
            span.end(began + (number + 1) * 10 * MILLI)

    def router(tracer: Tracer) -> None:
        for number, parent in enumerate(parents):
            for name in ("step", "step"):
                began = BEGAN + number * MILLI
                span = tracer.start_span(
                    name, parent, SpanKind.INTERNAL, {"is_fast": number == 0}, start_time=began
                )
                span.end(began + 5 * MILLI)

    await client.export("gateway", gateway)
    await client.export("router", router)


async def numbers(client: Client, **parameters: str) -> list[int]:
    """The requests that a search finds, in its order."""
    traces = await client.data("/api/traces", **{**WHEN, **parameters})
    tags = [tag for trace in traces for span in trace["spans"] for tag in span["tags"]]
    return [tag["value"] for tag in tags if tag["key"] == "number"]


async def test_a_search_finds_the_traces_with_a_span_that_is_all_it_says(client: Client) -> None:
    await with_three_requests(client)
    assert await numbers(client, service="gateway") == [2, 1, 0]
    assert await numbers(client, service="gateway", limit="1") == [2]
    assert await numbers(client, service="nobody") == []
    assert await numbers(client, operation="step") == [2, 1, 0]
    assert await numbers(client, service="gateway", operation="step") == []
    assert await numbers(client, tags=json.dumps({"number": "1"})) == [1]
    assert await numbers(client, tag="is_fast:true") == [0]
    assert await numbers(client, service="gateway", tag="is_fast:true") == []
    assert await numbers(
        client, tags=json.dumps({"span.kind": "server", "service.instance.id": "gateway-1"})
    ) == [*(2, 1, 0)]
    assert await numbers(client, minDuration="15ms") == [2, 1]
    assert await numbers(client, service="gateway", maxDuration="15ms") == [0]
    assert await numbers(client, minDuration="15ms", maxDuration="25ms") == [1]
    assert await numbers(client, start=str(BEGAN // 1000 + 2_000)) == [2]
    assert await numbers(client, end=str(BEGAN // 1000)) == [0]
    assert await client.data("/api/traces", lookback="1h") == []


async def test_an_answer_is_bounded_by_its_spans(client: Client) -> None:
    await with_three_requests(client)
    for most, found in ((1, [2]), (6, [2, 1]), (9, [2, 1, 0])):
        app = query_app(client.running.store, max_answer_spans=most)
        async with TestServer(app) as server:
            assert server.port is not None
            running = replace(client.running, http_port=server.port)
            assert await numbers(Client(running, client.session)) == found


async def test_services_operations_and_dependencies_are_listed(client: Client) -> None:
    await with_three_requests(client)
    assert await client.data("/api/services") == ["gateway", "router"]
    assert await client.data("/api/services/gateway/operations") == ["generate"]
    assert await client.data("/api/operations", service="router") == [
        {"name": "step", "spanKind": "internal"}
    ]
    assert await client.data("/api/operations", service="router", spanKind="server") == []
    assert await client.data("/api/dependencies") == [
        {
            "parent": "gateway",
            "child": "router",
            "callCount": 6,
            "p50": 5_000,
            "p99": 5_000,
            "errors": 0,
        }
    ]
    later = {"endTs": str(BEGAN // MILLI + 10_000), "lookback": "1000"}
    assert await client.data("/api/dependencies", **later) == []


async def test_a_summary_says_what_a_list_shows(client: Client) -> None:
    await with_three_requests(client)
    (last, *_) = await client.data("/api/summaries", **WHEN)
    assert last.pop("traceID")
    assert last == {
        "rootService": "gateway",
        "rootOperation": "generate",
        "startTime": BEGAN // 1000 + 2_000,
        "duration": 30_000,
        "services": {"gateway": 1, "router": 2},
        "numErrors": 0,
        "request": {},
    }


async def test_a_summary_of_a_request_says_what_tells_it_from_others(client: Client) -> None:
    record_request(client.running.store, TRACE_ID, hangs=True, error=("CANCELLED", "left"))
    (found,) = await client.data("/api/summaries")
    assert found["request"] == {
        "inputTokens": 4,
        "outputTokens": 8,
        "firstToken": 9_000,
        "status": "CANCELLED",
        "straggler": "expert-0",
        "communication": pytest.approx(49 / 79),
    }


async def test_a_reading_has_the_words_and_the_map_of_who_cost_which_layer_what(
    client: Client,
) -> None:
    record_request(client.running.store, TRACE_ID, hangs=True)
    (reading,) = await client.data(f"/api/readings/{TRACE_ID}")
    slowest, costliest = reading["verdict"]
    assert slowest["text"] == (
        "layer 2 of step 5: expert-0 did not answer for 200.00 ms of 202.30 ms, expert-1 did it"
    )
    assert costliest["text"].startswith("of all services expert-0 cost most: 200.00 ms")
    assert "router.expert failed, and the request went on" in reading["failure"]["text"]
    (hung,) = [cell for cell in reading["heat"] if cell["spanID"] == slowest["spanID"]]
    assert (hung["service"], hung["layer"], hung["count"]) == ("expert-0", 2, 1)
    assert hung["cost"] == 200_000
    assert reading["stragglers"][slowest["spanID"]]["text"] in slowest["text"]
    assert reading["layers"][2]["straggler"] == "expert-0"
    assert set(reading["labels"].values()) == {"gateway", "router", "expert-0", "expert-1"}
    status, _ = await client.get(f"/api/readings/{'9' * 32}")
    assert status == 404


@pytest.mark.parametrize(
    ("path", "parameters", "status", "said"),
    [
        ("/api/traces", {"limit": "0"}, 400, "limit"),
        ("/api/traces", {"limit": "1e9"}, 400, "limit"),
        ("/api/traces", {"minDuration": "soon"}, 400, "minDuration"),
        ("/api/traces", {"lookback": "9" * 400 + "h"}, 400, "lookback"),
        ("/api/traces", {"start": "-1"}, 400, "start"),
        ("/api/traces", {"tags": "[" * 2000}, 400, "tags"),
        ("/api/traces", {"tags": '{"a": 1}'}, 400, "tags"),
        ("/api/traces", {"tag": "key"}, 400, "tag"),
        ("/api/traces", {"traceID": "xyz"}, 400, "trace id"),
        ("/api/traces/0123456789abcdef0123456789abcdef0", {}, 400, "trace id"),
        ("/api/traces/abc", {}, 404, "not found"),
        ("/api/operations", {}, 400, "service"),
        ("/api/dependencies", {"endTs": "now"}, 400, "endTs"),
    ],
)
async def test_a_question_that_means_nothing_is_answered_as_jaeger_does(
    client: Client, path: str, parameters: dict[str, str], status: int, said: str
) -> None:
    answered, document = await client.get(path, parameters)
    assert answered == status
    assert document["data"] is None
    assert document["errors"][0]["code"] == status
    assert said in document["errors"][0]["msg"]


def test_durations_are_read_as_go_writes_them() -> None:
    assert nanos_in("1h30m", "x") == 5_400 * 1_000_000_000
    assert nanos_in("1.5s", "x") == 1_500_000_000
    assert nanos_in("20µs", "x") == nanos_in("20us", "x") == 20_000
    with pytest.raises(InvalidRequest):
        nanos_in("", "x")


async def test_the_page_s_files_are_served_and_no_others() -> None:
    async with tracing_client() as client:
        for name, kind in (("main.js", "text/javascript"), ("page.css", "text/css")):
            async with client.session.get(f"{client.url}/page/{name}") as response:
                assert (response.status, response.content_type) == (200, kind)
                assert "https://" not in await response.text()
        for name in ("__init__.py", "page.html", "nothing.js", "%2e%2e%2fapp.py", "..%2Fpage.css"):
            async with client.session.get(f"{client.url}/page/{name}") as response:
                assert response.status == 404


async def test_the_page_is_served_where_jaegers_links_lead_and_asks_no_other_host() -> None:
    async with tracing_client() as client:
        for path in ("/", "/search", "/trace/abc"):
            async with client.session.get(f"{client.url}{path}") as response:
                text = await response.text()
                assert response.status == 200
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert "stand-in" in text
            assert "http://" not in text
            assert "https://" not in text
