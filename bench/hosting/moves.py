"""Experts that move all the time: how many have moved, and what memory the services took
meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from bench.hosting.cluster import HostedCluster
from bench.hosting.events import scattered
from bench.rig.kernel import resident_bytes
from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.runtime.channels import open_channel

SAMPLE_SECONDS = 0.05


@dataclass
class Memory:
    """What one expert service took: bytes that its experts took at most, of those it may take, by
    every message.

    `num_loaded` counts experts that became ready. Resident bytes are those of its whole process.
    """

    limit_bytes: int
    most_bytes: int = 0
    num_messages: int = 0
    num_loaded: int = 0
    resident_before: int = 0
    resident_most: int = 0
    _ready: set[tuple[int, int]] = field(default_factory=set)

    @property
    def over_bytes(self) -> int:
        """How far it was above its limit at worst."""
        return max(0, self.most_bytes - self.limit_bytes)

    def as_object(self) -> dict[str, int]:
        """For JSON."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def take(self, hosting: expert_pb2.WatchHostingResponse, expert_bytes: int) -> None:
        """Count what a message says: experts that load or retire have their memory too."""
        ready = {
            (one.layer, one.expert)
            for one in hosting.experts
            if one.state == expert_pb2.EXPERT_STATE_READY
        }
        self.num_loaded += len(ready - self._ready) if self.num_messages else 0
        self._ready = ready
        self.num_messages += 1
        self.most_bytes = max(self.most_bytes, len(hosting.experts) * expert_bytes)


async def move_on(cluster: HostedCluster, number: int) -> None:
    """Move the experts that the pattern before had elsewhere."""
    async for _ in cluster.change(scattered(cluster, number % 2)):
        pass


async def move_for(cluster: HostedCluster, seconds: float) -> int:
    """Move experts without a pause for about so long; how many rounds there were."""
    deadline, number = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < deadline:
        number += 1
        await move_on(cluster, number)
    return number


@asynccontextmanager
async def memory_watched(cluster: HostedCluster) -> AsyncIterator[dict[str, Memory]]:
    """Follow every service's hosting, message for message, and its resident memory, until the block
    ends.
    """
    memories: dict[str, Memory] = {}
    async with asyncio.TaskGroup() as tasks:
        is_seen = {name: asyncio.Event() for name in cluster.running}
        watching = [
            tasks.create_task(_watch(cluster, name, memories, seen))
            for name, seen in is_seen.items()
        ]
        for seen in is_seen.values():
            await seen.wait()
        watching.append(tasks.create_task(_sample(cluster, memories)))
        try:
            yield memories
        finally:
            for task in watching:
                task.cancel()


async def _watch(
    cluster: HostedCluster, name: str, memories: dict[str, Memory], seen: asyncio.Event
) -> None:
    channel: grpc.aio.Channel
    async with open_channel(cluster.experts[name].member.address) as channel:
        stub = expert_pb2_grpc.ExpertServiceStub(channel)
        about = await stub.Describe(expert_pb2.ExpertServiceDescribeRequest())
        resident = resident_bytes(cluster.pid(name))
        memory = memories[name] = Memory(
            about.expert_memory_bytes, resident_before=resident, resident_most=resident
        )
        async for hosting in stub.WatchHosting(expert_pb2.WatchHostingRequest()):
            memory.take(hosting, max(about.expert_bytes))
            seen.set()


async def _sample(cluster: HostedCluster, memories: dict[str, Memory]) -> None:
    while True:
        for name, memory in memories.items():
            memory.resident_most = max(memory.resident_most, resident_bytes(cluster.pid(name)))
        await asyncio.sleep(SAMPLE_SECONDS)
