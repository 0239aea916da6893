"""Clients over HTTP that leave at random moments, and what is left of them then."""

import asyncio
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from bench.door.http_load import READ_BYTES, request_bytes
from bench.rig.cluster import Cluster
from bench.rig.kernel import resident_bytes
from moesaic.v1 import router_pb2
from moesaic.v1.router_pb2_grpc import RouterServiceStub
from services.runtime.channels import open_channel
from services.runtime.host_port import split_host_port

AT_ONCE = 64
MOST_SECONDS = 0.4  # until a client leaves
NUM_NEW_TOKENS = 256
SETTLE_SECONDS = 10.0
CALL_SECONDS = 10.0
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Left:
    """What a gateway and its router hold; `running` are sequences."""

    descriptors: int
    resident_mib: float
    running: int
    free_kv_tokens: int


async def leave(cluster: Cluster, prompts: Sequence[Sequence[int]], count: int, seed: int) -> None:
    """Have so many clients begin a request each, and leave before its end."""
    host, port = split_host_port(cluster.http)
    places, moments = asyncio.Semaphore(AT_ONCE), random.Random(seed)

    async def one(number: int) -> None:
        async with places:
            reader, writer = await asyncio.open_connection(host, port)
            prompt = prompts[number % len(prompts)]
            writer.write(request_bytes(host, prompt, max_tokens=NUM_NEW_TOKENS))
            with suppress(TimeoutError):
                async with asyncio.timeout(moments.uniform(0.0, MOST_SECONDS)):
                    while await reader.read(READ_BYTES):
                        pass
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    await asyncio.gather(*(one(number) for number in range(count)))


async def left(cluster: Cluster) -> Left:
    """What is held once no sequence runs any more, or SETTLE_SECONDS later."""
    async with open_channel(cluster.router.address) as channel:
        stub = RouterServiceStub(channel)
        limits = await stub.Describe(
            router_pb2.RouterServiceDescribeRequest(), timeout=CALL_SECONDS
        )
        credit = await _credit(stub)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while credit.sequences < limits.max_sequences:
                    await asyncio.sleep(0.1)
                    credit = await _credit(stub)
    return Left(
        descriptors=len(os.listdir(f"/proc/{cluster.gateway.pid}/fd")),
        resident_mib=resident_bytes(cluster.gateway.pid) / MEBIBYTE,
        running=limits.max_sequences - credit.sequences,
        free_kv_tokens=credit.kv_tokens,
    )


async def _credit(stub: RouterServiceStub) -> router_pb2.Credit:
    call = stub.Run(timeout=CALL_SECONDS)
    response = await call.read()
    call.cancel()
    credit: router_pb2.Credit = response.credit
    return credit
