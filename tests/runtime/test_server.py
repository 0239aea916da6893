"""Starting, serving and stopping."""

import asyncio
import os
import signal
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.runtime.server import Health, PortInUse, serving, until_told_to_stop
from services.runtime.signals import ENDING, ending_signals

NAME = "moesaic.v1.ExpertService"
HealthStatus = health_pb2.HealthCheckResponse


def register_nothing(server: grpc.aio.Server) -> None:
    pass


async def status(port: int, service: str = "") -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return response.status


async def test_a_port_in_use_is_refused() -> None:
    async with serving(
        register_nothing, listen="127.0.0.1:0", service_names=[NAME], drain_seconds=0
    ) as port:
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port}"):
            async with serving(
                register_nothing, listen=f"127.0.0.1:{port}", service_names=[NAME], drain_seconds=0
            ):
                pass


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortInUse, match=r"192\.0\.2\.1:50051"):
        async with serving(
            register_nothing, listen="192.0.2.1:50051", service_names=[NAME], drain_seconds=0
        ):
            pass


async def test_a_service_without_health_of_its_own_is_healthy_at_once() -> None:
    async with serving(
        register_nothing, listen="127.0.0.1:0", service_names=[NAME], drain_seconds=0
    ) as port:
        assert await status(port) == HealthStatus.SERVING
        assert await status(port, NAME) == HealthStatus.SERVING


async def test_health_of_its_own_says_when_a_service_is_ready_and_when_it_drains() -> None:
    health = Health([NAME])
    async with serving(
        register_nothing, listen="127.0.0.1:0", service_names=[NAME], drain_seconds=0, health=health
    ) as port:
        assert await status(port, NAME) == HealthStatus.NOT_SERVING
        await health.ready()
        assert await status(port, NAME) == HealthStatus.SERVING
        await health.draining()
        assert await status(port) == HealthStatus.NOT_SERVING


async def test_reflection_lists_the_services() -> None:
    async with (
        serving(
            register_nothing, listen="127.0.0.1:0", service_names=[NAME], drain_seconds=0
        ) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        response = await stub.ServerReflectionInfo(iter([asked]), timeout=5).read()
    names = {service.name for service in response.list_services_response.service}
    assert names == {NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.fixture
def signals() -> Iterator[None]:
    """What the signals did before, they do afterwards."""
    before = {one: signal.getsignal(one) for one in ENDING}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", ENDING)
async def test_a_signal_ends_the_wait_and_a_second_one_would_end_the_process(
    number: signal.Signals,
) -> None:
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
    await until_told_to_stop()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("signals")
async def test_a_terminal_that_is_closed_tells_twice_and_ends_nothing_at_once() -> None:
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGHUP)
    await until_told_to_stop()
    os.kill(os.getpid(), signal.SIGHUP)  # this process is still there
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


@pytest.mark.usefixtures("signals")
async def test_a_second_signal_may_be_handled_by_whoever_waits() -> None:
    again = asyncio.Event()
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGHUP)
    await until_told_to_stop(again=again.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await again.wait()
    for number in ENDING:
        asyncio.get_running_loop().remove_signal_handler(number)


@pytest.mark.usefixtures("signals")
def test_a_closed_terminal_is_none_of_the_signals_where_it_is_ignored_already() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert ending_signals() == [signal.SIGINT, signal.SIGTERM]
