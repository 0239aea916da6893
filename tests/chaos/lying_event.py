"""A lying service as an event of a storm: it joins, is given experts, lies, and is gone."""

import asyncio

from bench.hosting.cluster import HostedCluster
from bench.hosting.events import Event
from tests.chaos.lying_service import lying_service

POLL_SECONDS = 0.05
JOIN_SECONDS = 60.0


def lied(name: str, kind: str, seconds: float) -> Event:
    """A service that nobody knew is made known under another address, where each of its replies is
    a lie of that kind once it hosts something. It dies while it lies.
    """

    async def act(cluster: HostedCluster) -> None:
        await cluster.start_expert(name)
        async with lying_service(cluster.experts[name].member.address) as (liar, address):
            await cluster.admin.add([address])
            async with asyncio.timeout(JOIN_SECONDS):
                while not (await cluster.admin.hosted()).get(address):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_SECONDS)
            liar.lie(kind)
            await asyncio.sleep(seconds)
        await cluster.kill(name)

    return Event(f"{name} joins, and lies for {seconds:g} s: {kind}", act)
