"""Channels and the addresses that a name stands for."""

import asyncio
import signal
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.channels import open_channel, resolve, split_address
from services.runtime.server import serving
from services.wire.errors import InvalidRequest, Unavailable
from tests.runtime.services import WATCH, service_process

Record = tuple[int, int, int, str, tuple[str | int, ...]]


def record(host: str) -> Record:
    if ":" in host:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, 50053, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 50053))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """What the name service answers; DNS itself is the one thing a test cannot have of its own."""
    answer: list[Record] = []

    async def getaddrinfo(
        loop: asyncio.AbstractEventLoop, host: str, port: int, *, type: int
    ) -> list[Record]:
        return answer

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return answer


async def test_host_and_port_are_one_service_as_they_are() -> None:
    assert await resolve("localhost:50053") == ["localhost:50053"]


async def test_a_name_is_one_service_for_each_a_record(records: list[Record]) -> None:
    records += [record("10.0.0.2"), record("10.0.0.1"), record("10.0.0.1")]
    assert await resolve("dns:///expert:50053") == ["10.0.0.1:50053", "10.0.0.2:50053"]


async def test_a_dual_stack_service_counts_once(records: list[Record]) -> None:
    records += [record("fd00::1"), record("10.0.0.1")]
    assert await resolve("dns:///expert:50053") == ["10.0.0.1:50053"]


async def test_a_name_with_only_aaaa_records_is_resolved_to_them(records: list[Record]) -> None:
    records += [record("fd00::2"), record("fd00::1")]
    assert await resolve("dns:///expert:50053") == ["[fd00::1]:50053", "[fd00::2]:50053"]


async def test_an_unknown_name_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"does-not-exist\.invalid"):
        await resolve("dns:///does-not-exist.invalid:50053")


@pytest.mark.parametrize("name", ["x" * 100, "a..b"])
async def test_a_name_that_no_host_can_have_is_the_callers_fault(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no address: it should be host:port"):
        await resolve(f"dns:///{name}:50053")


async def test_a_name_service_that_does_not_answer_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def getaddrinfo(
        loop: asyncio.AbstractEventLoop, host: str, port: int, *, type: int
    ) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with pytest.raises(Unavailable, match="no answer in time"):
        await resolve("dns:///expert:50053", timeout_seconds=0.01)


def test_an_ipv6_address_is_split_without_its_brackets() -> None:
    assert split_address("[::1]:50051") == ("::1", 50051)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":50051", "host:port", "host:70000", "host:-1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="host:port"):
        split_address(address)


async def test_a_channel_reaches_a_server_again_after_it_was_restarted() -> None:
    async def status(channel: grpc.aio.Channel) -> int:
        stub = health_pb2_grpc.HealthStub(channel)
        response = await stub.Check(
            health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True
        )
        return response.status

    serving_now: dict[str, Any] = {
        "service_names": [],
        "drain_seconds": 0.0,
        "register": lambda server: None,
    }
    async with serving(**serving_now, listen="127.0.0.1:0") as port:
        channel = open_channel(f"127.0.0.1:{port}")
        assert await status(channel) == health_pb2.HealthCheckResponse.SERVING
    async with serving(**serving_now, listen=f"127.0.0.1:{port}"):
        assert await status(channel) == health_pb2.HealthCheckResponse.SERVING
    await channel.close()


@pytest.mark.alone
async def test_a_process_that_hangs_is_given_up_when_it_answers_no_ping_in_time() -> None:
    async with (
        service_process() as (process, port),
        open_channel(f"127.0.0.1:{port}", silence_seconds=1, answer_seconds=0.5) as channel,
    ):
        call = channel.unary_stream(WATCH)(b"")
        await call.read()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await call.read()
