"""A process that is told to stop: it serves on while routers move its experts elsewhere."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import torch

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.runtime.channels import open_channel
from tests.expert.expert_client import Stream
from tests.expert.expert_process import process

# Longer than any test may run: what ends before did not wait for it.
FOREVER = "--evacuate-seconds=3600"


class Expert:
    """An expert process, and what a router that watches its hosting sees."""

    def __init__(self, running: asyncio.subprocess.Process, channel: grpc.aio.Channel) -> None:
        self.running = running
        self.stub = expert_pb2_grpc.ExpertServiceStub(channel)
        self.stream = Stream(channel)
        self.watch = self.stub.WatchHosting(expert_pb2.WatchHostingRequest())

    async def told_to_stop(self) -> expert_pb2.WatchHostingResponse:
        """What the watch says of the hosting once the process has its signal."""
        await self.watch.read()
        self.running.send_signal(signal.SIGTERM)
        hosting: expert_pb2.WatchHostingResponse = await self.watch.read()
        assert hosting.is_draining
        return hosting

    async def serves(self) -> bool:
        await self.stream.send(0, torch.randn(1, 32), [(0, 0)])
        return not (await self.stream.reply()).failures


@asynccontextmanager
async def expert_process(model: Path, *flags: str) -> AsyncIterator[Expert]:
    async with process("--listen", "127.0.0.1:0", "--model", str(model), *flags) as (running, announced):
        _, port = (await announced.readline()).split()
        async with open_channel(f"127.0.0.1:{int(port)}") as channel:
            yield Expert(running, channel)


def experts(hosting: expert_pb2.WatchHostingResponse) -> list[expert_pb2.ExpertId]:
    return [expert_pb2.ExpertId(layer=entry.layer, expert=entry.expert) for entry in hosting.experts]


async def test_it_serves_until_its_experts_are_unloaded(olmoe: Path) -> None:
    async with expert_process(olmoe, "--preload=all", FOREVER) as expert:
        hosting = await expert.told_to_stop()
        assert len(hosting.experts) == 3 * 8
        assert await expert.serves()
        some, rest = experts(hosting)[:8], experts(hosting)[8:]
        for keys in (some, rest):
            assert expert.running.returncode is None
            unloaded = await expert.stub.UnloadExperts(
                expert_pb2.UnloadExpertsRequest(expected_generation=hosting.generation, experts=keys)
            )
            while hosting.generation < unloaded.generation:
                hosting = await expert.watch.read()
        assert not hosting.experts
        assert await expert.watch.read() is grpc.aio.EOF
        assert await expert.running.wait() == 0


async def test_it_takes_no_more_experts(olmoe: Path) -> None:
    async with expert_process(olmoe, "--preload=0/2", FOREVER) as expert:
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


async def test_it_does_not_wait_longer_than_it_may(olmoe: Path) -> None:
    async with expert_process(olmoe, "--preload=0/2", "--evacuate-seconds=0.1") as expert:
        await expert.told_to_stop()
        assert await expert.watch.read() is grpc.aio.EOF
        _, said = await expert.running.communicate()
        assert expert.running.returncode == 0
        assert "stopping with 12 experts that were not moved elsewhere in 0.1 s" in said.decode()


async def test_it_does_not_wait_once_nobody_watches(olmoe: Path) -> None:
    async with expert_process(olmoe, "--preload=0/2", FOREVER) as expert:
        await expert.told_to_stop()
        assert await expert.serves()
        assert expert.running.returncode is None
        expert.watch.cancel()
        assert await expert.running.wait() == 0


async def test_it_does_not_wait_without_experts(olmoe: Path) -> None:
    async with expert_process(olmoe, FOREVER) as expert:
        await expert.told_to_stop()
        assert await expert.watch.read() is grpc.aio.EOF
        assert await expert.running.wait() == 0


async def test_a_second_signal_ends_it_at_once(olmoe: Path) -> None:
    async with expert_process(olmoe, "--preload=0/2", FOREVER) as expert:
        await expert.told_to_stop()
        expert.running.send_signal(signal.SIGTERM)
        assert await expert.running.wait() == -signal.SIGTERM
