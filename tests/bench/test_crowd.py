"""The parts of bench.crowd: its clients, its watch of the loop, its tables."""

import asyncio
import json
import time
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from bench.crowd.bodies import BODIES, body_of, sent
from bench.crowd.hostile import FLOODS, TOKENIZE, message_of
from bench.crowd.loads import LOADS
from bench.crowd.probe import LoopBlocks, LoopWatch
from bench.crowd.tables import (
    Attack,
    Burst,
    Overload,
    add_attacks,
    add_bodies,
    add_body_figures,
    add_bursts,
    add_figures,
)
from bench.crowd.wire import GENERATE, WireClient, work_until
from bench.harness.report import Report
from moesaic.v1 import generation_pb2 as pb
from services.runtime.call_blocks import request_block
from services.runtime.native_server import AVAILABLE
from tests.gateway.gateway_client import Client, running_gateway
from tests.gateway.http.http_client import http_gateway
from tests.gateway.router_double import RouterDouble

HOST = "127.0.0.9"
BLOCK = {"longest": 40.0, "computing": 30.0, "displaced": 1.0, "collecting": 2.0}
LOAD = {"hosts": [HOST], "prompt": [5, 6], "num_new_tokens": 2}

compiled = pytest.mark.skipif(not AVAILABLE, reason="the connections were not compiled")


def test_a_block_of_the_loop_is_seen_from_outside(tmp_path: Path) -> None:
    loop, watched = asyncio.new_event_loop(), LoopBlocks.in_folder(tmp_path)
    seen = LoopBlocks.in_folder(tmp_path)

    def look() -> None:
        if seen.longest_ms()["longest"] >= 20:
            loop.stop()
        else:
            loop.call_soon(look)

    loop.call_soon(LoopWatch, watched)
    loop.call_soon(time.sleep, 0.03)
    loop.call_soon(look)
    loop.run_forever()
    loop.close()
    longest = seen.longest_ms()
    assert longest["computing"] < longest["longest"]
    seen.clear()
    assert not watched.longest_ms()["longest"]


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_over_http_are_json_of_about_that_size(kind: str) -> None:
    body = body_of(kind, 8192)
    assert len(body) == pytest.approx(8192, rel=0.2) or kind == "a short text"
    if kind != "what is too deep":
        assert json.loads(body)["max_tokens"] == 1


async def test_a_body_over_http_is_sent_again_and_again() -> None:
    async with http_gateway(RouterDouble(answer=[5])) as client:
        result = await asyncio.to_thread(
            sent, address=f"127.0.0.1:{client.port}", kind="a short text", seconds=0.05
        )
    assert result["statuses"] == {"200": result["num_calls"]}


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
def test_what_hostile_clients_send_is_read_as_a_request(flood: Any) -> None:
    message = message_of(flood, 64)
    if message is None or flood.name == "15 MB of token ids":
        return
    kind: type[Message] = pb.TokenizeRequest if flood.path == TOKENIZE else pb.GenerateRequest
    assert kind.FromString(message).ByteSize() == len(message)


async def in_thread(load: str, **values: Any) -> Any:
    """A load, as its own process would put it on the gateway of this one."""
    return await asyncio.to_thread(LOADS[load], **values)


@compiled
async def test_clients_count_how_their_calls_end_and_when_tokens_come() -> None:
    router = RouterDouble(answer=[5, 6])
    async with running_gateway(router, max_waiting_requests=8) as client:
        crowd = await in_thread("burst", address=client.address, count=30, **LOAD)
        series = await in_thread("series", address=client.address, seconds=0.2, **LOAD)
        many = await in_thread(
            "offered", address=client.address, requests_per_second=50, seconds=0.2, **LOAD
        )
    assert sum(crowd["statuses"].values()) == 30
    assert set(crowd["statuses"]) <= {"0", "8"}
    assert len(crowd["refused_ms"]) == crowd["statuses"].get("8", 0)
    assert len(series["first_token_ms"]) >= series["statuses"]["0"] >= 1
    assert 5 <= sum(many["statuses"].values()) <= 11


async def is_served(client: Client) -> bool:
    status = grpc.StatusCode.OK
    try:
        await client.complete()
    except grpc.aio.AioRpcError as error:
        status = error.code()
    assert status in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    return status == grpc.StatusCode.OK


@compiled
@pytest.mark.parametrize(
    "kind", ["calls without a request", "connections that vanish with calls", "15 MB of token ids"]
)
async def test_a_gateway_serves_on_after_hostile_clients(kind: str) -> None:
    router = RouterDouble(answer=[5, 6])
    async with running_gateway(router) as client:
        values = {"address": client.address, "hosts": [HOST], "kind": kind, "max_context": 64}
        result = await in_thread("flood", seconds=0.1, **values)
        assert result["num_calls"]
        async with asyncio.timeout(20):
            while not await is_served(client):  # the last of them are still leaving
                pass


@compiled
async def test_a_client_whose_service_is_gone_ends_its_calls() -> None:
    async with running_gateway(RouterDouble(sequences=0)) as client:
        wire = WireClient(client.address, HOST)
        block = request_block(GENERATE, client.address)
        call = wire.begin(block, pb.GenerateRequest(text="Once").SerializeToString())
        assert call is not None
        until = time.monotonic_ns() + 10**10
        working = Thread(target=work_until, args=([wire], lambda: False, until))
        working.start()
        await client.stub.GetModel(pb.GetModelRequest())
    await asyncio.to_thread(working.join)
    assert call.status is not None
    assert wire.is_over


def test_the_figures_are_those_of_the_worst_round() -> None:
    report, answers = Report("crowd", ""), {"statuses": {"8": 3}, "num_calls": 3}
    attacks = [
        Attack("kind", {**BLOCK, "longest": ms}, 90.0, 0.0, 0.5, answers) for ms in (7.0, 9.0)
    ]
    served = {"inter_token_ms": [1.0, 2.0], "completed_per_second": 10.0}
    offered = {**served, "inter_token_ms": [2.0, 4.0], "refused_ms": [3.0]}
    other = {"first_token_ms": [5.0, 6.0]}
    crowd = {"statuses": {"1": 2, "8": 5}, "refused_ms": [1.0], "seconds": 1.0}
    bursts = [Burst(crowd, other, BLOCK)]
    overloads = [Overload(served, {**offered, "offered_per_second": 100.0}, BLOCK, 0.1, 0.2)]
    add_attacks(report, attacks)
    add_bursts(report, bursts)
    add_bodies(report, attacks)
    add_figures(report, attacks, bursts, overloads)
    add_body_figures(report, attacks)
    figures = {row[0]: row[1] for row in report.tables[-1].rows}
    assert figures["longest block of the loop under hostile clients, ms"] == 9.0
    assert figures["longest block of the loop by a body over HTTP, ms"] == 9.0
    assert figures["many calls at once: ended with CANCELLED"] == 2
    slower = figures["accepted: time between tokens, p99 ÷ at capacity"]
    assert slower.median == pytest.approx(2.0)  # type: ignore[union-attr]
