"""Who hosts what by the expert services' own word, and whether that is a valid placement."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.hosting.admin import CALL_SECONDS, Key
from bench.hosting.cluster import HostedCluster
from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.runtime.channels import open_channel

# How long experts may be on their way after the placement is whole; longer is for ever.
UNDER_WAY_SECONDS = 15.0
POLL_SECONDS = 0.05

Hosting = expert_pb2.WatchHostingResponse


@dataclass(frozen=True)
class Faults:
    """What is wrong with a placement: experts that nobody has ready, and a line for everything that
    is not valid.
    """

    lost: Sequence[Key]
    invalid: Sequence[str]


async def faults(cluster: HostedCluster) -> Faults:
    """What is wrong with the placement, once nothing is under way any more."""
    deadline = asyncio.get_running_loop().time() + UNDER_WAY_SECONDS
    while True:
        by_service = await hostings(cluster)
        is_quiet = all(
            expert.state == expert_pb2.EXPERT_STATE_READY
            for hosting in by_service.values()
            for expert in hosting.experts
        )
        if is_quiet or asyncio.get_running_loop().time() > deadline:
            return faults_of(by_service, cluster.keys, cluster.plan.memory_experts)
        await asyncio.sleep(POLL_SECONDS)


async def hostings(cluster: HostedCluster) -> dict[str, Hosting]:
    """The hosting of each running service, by its name, as the service itself says it."""
    by_service = {}
    for name, expert in cluster.running.items():
        async with open_channel(expert.member.address) as channel:
            stub = expert_pb2_grpc.ExpertServiceStub(channel)
            call = stub.WatchHosting(
                expert_pb2.WatchHostingRequest(), wait_for_ready=True, timeout=CALL_SECONDS
            )
            by_service[name] = await call.read()
            call.cancel()
    return by_service


def faults_of(by_service: Mapping[str, Hosting], keys: Sequence[Key], max_experts: int) -> Faults:
    """The faults of a placement in which nothing should be under way any more."""
    replicas: Counter[Key] = Counter()
    hashes: dict[Key, set[bytes]] = {}
    invalid = []
    for name, hosting in by_service.items():
        names = [(expert.layer, expert.expert) for expert in hosting.experts]
        invalid += [
            f"{name} hosts {key} twice" for key, count in Counter(names).items() if count > 1
        ]
        invalid += [
            f"{name} hosts {key}, which there is not" for key in sorted(set(names) - set(keys))
        ]
        if len(names) > max_experts:
            invalid.append(f"{name} hosts {len(names)} experts and has memory for {max_experts}")
        for key, expert in zip(names, hosting.experts, strict=True):
            if expert.state != expert_pb2.EXPERT_STATE_READY:
                invalid.append(
                    f"{name} leaves {key} in {expert_pb2.ExpertState.Name(expert.state)}"
                )
            else:
                replicas[key] += 1
                hashes.setdefault(key, set()).add(expert.content_hash)
    invalid += [
        f"replicas of {key} differ" for key, found in sorted(hashes.items()) if len(found) > 1
    ]
    return Faults([key for key in keys if not replicas[key]], invalid)
