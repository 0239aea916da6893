"""A service that is told to stop: it serves on while routers move its experts elsewhere."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.expert.app import run
from services.expert.settings import ExpertSettings
from services.runtime.channels import open_channel
from tests.expert.expert_client import Stream
from tests.service_process import service_process

# Longer than any test may run: what ends before did not wait for it.
FOREVER = 3600


class Expert:
    """An expert service in the process `pid`, and what a router that watches its hosting sees."""

    def __init__(self, pid: int, channel: grpc.aio.Channel) -> None:
        self._pid = pid
        self.stub = expert_pb2_grpc.ExpertServiceStub(channel)
        self.stream = Stream(channel)
        self.watch = self.stub.WatchHosting(expert_pb2.WatchHostingRequest())

    async def told_to_stop(self) -> expert_pb2.WatchHostingResponse:
        """What the watch says of the hosting once the process has its signal."""
        await self.watch.read()
        os.kill(self._pid, signal.SIGTERM)
        hosting: expert_pb2.WatchHostingResponse = await self.watch.read()
        assert hosting.is_draining
        return hosting

    async def serves(self) -> bool:
        await self.stream.send(0, torch.randn(1, 32), [(0, 0)])
        return not (await self.stream.reply()).failures


@asynccontextmanager
async def expert_process(
    model: Path, *flags: str
) -> AsyncIterator[tuple[Expert, asyncio.subprocess.Process]]:
    flags = ("--listen", "127.0.0.1:0", "--model", str(model), *flags)
    async with service_process("expert", *flags) as (running, announced):
        _, port = (await announced.readline()).split()
        async with open_channel(f"127.0.0.1:{int(port)}") as channel:
            yield Expert(running.pid, channel), running


@asynccontextmanager
async def expert_here(
    model: Path, **settings: Any
) -> AsyncIterator[tuple[Expert, asyncio.Task[None]]]:
    """The same service in this process, which its signal is sent to as well; the task
    is its life.
    """
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def on_ready(bound: int) -> None:
        port.set_result(bound)

    async with asyncio.TaskGroup() as lives:
        life = lives.create_task(
            run(ExpertSettings(listen="127.0.0.1:0", model=model, **settings), on_ready=on_ready)
        )
        async with open_channel(f"127.0.0.1:{await port}") as channel:
            yield Expert(os.getpid(), channel), life
        life.cancel()


@pytest.fixture
def _signals_as_before() -> Iterator[None]:
    """A signal that no service waits for ends no test run, and the next tests find all
    as it was.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def experts(hosting: expert_pb2.WatchHostingResponse) -> list[expert_pb2.ExpertId]:
    return [
        expert_pb2.ExpertId(layer=entry.layer, expert=entry.expert) for entry in hosting.experts
    ]


async def test_it_serves_until_its_experts_are_unloaded(olmoe: Path) -> None:
    async with expert_process(olmoe, "--preload=all", f"--evacuate-seconds={FOREVER}") as (
        expert,
        running,
    ):
        hosting = await expert.told_to_stop()
        assert len(hosting.experts) == 3 * 8
        assert await expert.serves()
        some, rest = experts(hosting)[:8], experts(hosting)[8:]
        for keys in (some, rest):
            assert running.returncode is None
            unloaded = await expert.stub.UnloadExperts(
                expert_pb2.UnloadExpertsRequest(
                    expected_generation=hosting.generation, experts=keys
                )
            )
            while hosting.generation < unloaded.generation:
                hosting = await expert.watch.read()
        assert not hosting.experts
        assert await expert.watch.read() is grpc.aio.EOF
        assert await running.wait() == 0


async def test_a_second_signal_ends_it_at_once(olmoe: Path) -> None:
    async with expert_process(olmoe, "--preload=0/2", f"--evacuate-seconds={FOREVER}") as (
        expert,
        running,
    ):
        await expert.told_to_stop()
        running.send_signal(signal.SIGTERM)
        assert await running.wait() == -signal.SIGTERM


@pytest.mark.usefixtures("_signals_as_before")
async def test_it_takes_no_more_experts(olmoe: Path) -> None:
    async with expert_here(olmoe, preload="0/2", evacuate_seconds=FOREVER) as (expert, _):
        hosting = await expert.told_to_stop()
        described = await expert.stub.Describe(expert_pb2.ExpertServiceDescribeRequest())
        load = expert_pb2.LoadExpertsRequest(
            expected_generation=hosting.generation,
            model_digest=described.model_digest,
            experts=[expert_pb2.ExpertId(layer=1, expert=7)],
        )
        with pytest.raises(grpc.aio.AioRpcError, match="the service is draining") as refused:
            await expert.stub.LoadExperts(load).read()
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.usefixtures("_signals_as_before")
async def test_it_does_not_wait_longer_than_it_may(
    olmoe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with expert_here(olmoe, preload="0/2", evacuate_seconds=0.1) as (expert, life):
        await expert.told_to_stop()
        assert await expert.watch.read() is grpc.aio.EOF
        await life
    assert "stopping with 12 experts that were not moved elsewhere in 0.1 s" in caplog.text


@pytest.mark.usefixtures("_signals_as_before")
async def test_it_does_not_wait_once_nobody_watches(olmoe: Path) -> None:
    async with expert_here(olmoe, preload="0/2", evacuate_seconds=FOREVER) as (expert, life):
        await expert.told_to_stop()
        assert await expert.serves()
        assert not life.done()
        expert.watch.cancel()
        await life


@pytest.mark.usefixtures("_signals_as_before")
async def test_it_does_not_wait_without_experts(olmoe: Path) -> None:
    async with expert_here(olmoe, evacuate_seconds=FOREVER) as (expert, life):
        await expert.told_to_stop()
        assert await expert.watch.read() is grpc.aio.EOF
        await life
