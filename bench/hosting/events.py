"""What can befall a cluster: services that die, hang, come and go, networks that do damage, experts
that move.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc

from bench.hosting.admin import Key
from bench.hosting.cluster import ROUTER, HostedCluster, Target
from bench.hosting.findings import Window
from bench.hosting.streams import Streams
from bench.hosting.truth import faults
from bench.hosting.wire import Wire
from moesaic.v1 import router_pb2

# Experts that a killed move was to hand over: more than are loaded at once, and no more than there
# is room for.
NUM_HANDED_OVER = 20
PHASES: Mapping[str, Callable[[router_pb2.ChangePlacementResponse], bool]] = {
    "begun": lambda _: True,
    "loading": lambda response: response.num_done > 0,
    "retiring": lambda response: response.phase >= router_pb2.OPERATION_PHASE_RETIRING,
}


@dataclass(frozen=True)
class Event:
    """Something that befalls a cluster; `act` ends when it is over."""

    label: str
    act: Callable[[HostedCluster], Awaitable[None]]


async def befall(
    cluster: HostedCluster, streams: Streams, event: Event, *, calm_answers: int
) -> Window:
    """Let an event befall the cluster; returns once the placement is whole again and some requests
    have ended since.
    """
    num_retries, began = await cluster.admin.num_retries(), time.perf_counter()
    await event.act(cluster)
    await cluster.until_settled()
    await streams.until_answered(calm_answers)
    ended, num_retries = time.perf_counter(), await cluster.admin.num_retries() - num_retries
    return Window(event.label, began, ended, max(0, num_retries), await faults(cluster))


def undisturbed(seconds: float) -> Event:
    """Nothing happens."""
    return Event("undisturbed", lambda _: asyncio.sleep(seconds))


def killed(name: str) -> Event:
    """SIGKILL; what it hosted is hosted elsewhere from then on."""
    return Event(f"SIGKILL {name}", lambda cluster: cluster.kill(name))


def started(name: str) -> Event:
    """A service that had ended is there again, empty, and is given experts."""

    async def act(cluster: HostedCluster) -> None:
        await cluster.start_expert(name)
        await cluster.until_hosting(name)

    return Event(f"{name} starts again", act)


def router_started(name: str) -> Event:
    """A router that had ended is there again."""
    return Event(f"{name} starts again", lambda cluster: cluster.start_router(name))


def restarted(name: str) -> Event:
    """SIGKILL of a router or the gateway, which is started again at once; `restart_seconds` notes
    how long that takes.
    """

    async def act(cluster: HostedCluster) -> None:
        await cluster.kill(name)
        began = time.perf_counter()
        await (cluster.start_gateway() if name == "gateway" else cluster.start_router(name))
        cluster.restart_seconds.append(time.perf_counter() - began)

    return Event(f"SIGKILL {name}, started again", act)


def stopped(name: str, seconds: float) -> Event:
    """SIGSTOP, and SIGCONT later."""

    async def act(cluster: HostedCluster) -> None:
        cluster.stop(name)
        await asyncio.sleep(seconds)
        cluster.go_on(name)

    return Event(f"SIGSTOP {name} for {seconds:g} s", act)


def cut(name: str, seconds: float) -> Event:
    """Connections are reset, and new ones too, for a while."""
    return _on_wire(f"cut off {name} for {seconds:g} s", name, seconds, lambda wire: wire.cut())


def held(name: str, seconds: float) -> Event:
    """Nothing arrives any more, for a while, and nobody is told."""
    return _on_wire(
        f"hold {name}'s traffic for {seconds:g} s", name, seconds, lambda wire: wire.hold()
    )


def delayed(name: str, by_seconds: float, seconds: float) -> Event:
    """Everything arrives later, for a while."""
    label = f"delay {name} by {by_seconds * 1e3:.0f} ms for {seconds:g} s"
    return _on_wire(label, name, seconds, lambda wire: wire.delay(by_seconds))


def truncated(name: str, num_bytes: int, seconds: float) -> Event:
    """Connections end in the middle of a reply."""
    label = f"truncate {name}'s replies after {num_bytes} bytes"
    return _on_wire(label, name, seconds, lambda wire: wire.truncate(num_bytes))


def corrupted(name: str, every: int, seed: int, seconds: float) -> Event:
    """Bytes of some frames are others."""
    label = f"corrupt each {every}th frame of {name} for {seconds:g} s"
    return _on_wire(label, name, seconds, lambda wire: wire.corrupt(every, seed))


def moved(pattern: int) -> Event:
    """Experts are placed by a pattern; those that another one placed elsewhere move."""

    async def act(cluster: HostedCluster) -> None:
        await _until_done(cluster.change(scattered(cluster, pattern)))

    return Event(f"move experts (pattern {pattern})", act)


def spread() -> Event:
    """An operator asks for an even placement."""
    return Event("rebalance evenly", lambda cluster: _until_done(cluster.admin.spread_evenly()))


def joined(*names: str) -> Event:
    """Services that nobody knew are made known, and given experts."""

    async def act(cluster: HostedCluster) -> None:
        await asyncio.gather(*(cluster.start_expert(name) for name in names))
        await cluster.make_known(*names)
        await cluster.until_hosting(*names)

    return Event(f"{' and '.join(names)} join", act)


def left(name: str) -> Event:
    """SIGTERM: the service sees its experts moved elsewhere and ends."""
    return Event(f"SIGTERM {name}", lambda cluster: cluster.terminate(name))


def drained(name: str) -> Event:
    """An operator empties the service, then stops it."""

    async def act(cluster: HostedCluster) -> None:
        await _until_done(cluster.admin.drain(cluster.experts[name].address))
        await cluster.terminate(name)

    return Event(f"drain {name}, then SIGTERM", act)


def killed_in_move(source: str, destination: str, victim: str, phase: str) -> Event:
    """Somebody who takes part in a move is killed when it is in that phase; a router is started
    again.

    Phases are those of PHASES; a move that is over before it is seen there meets the kill at its
    end.
    """

    async def act(cluster: HostedCluster) -> None:
        await _until_done(cluster.admin.spread_evenly())  # so that there is room
        hosted = await cluster.hosted()
        handed = sorted(hosted[source] - hosted[destination])[:NUM_HANDED_OVER]
        target = {name: set(keys) for name, keys in hosted.items()}
        target[source] -= set(handed)
        target[destination] |= set(handed)
        call = cluster.change({name: sorted(keys) for name, keys in target.items()})
        await _until_phase(call, phase)
        await cluster.kill(victim)
        await _until_ended(call)
        if victim == ROUTER:
            await cluster.start_router()

    role = {source: "source of a move", destination: "target of a move"}.get(victim, "in a move")
    return Event(f"SIGKILL {victim}, {role}, when {phase}", act)


def scattered(cluster: HostedCluster, pattern: int) -> Target:
    """A placement with coverage 1 or 2 that is even in each layer and else random, by the pattern's
    number.

    No few services have everything, as they might in a regular one: then frames would go to those
    alone.
    """
    draws, names = random.Random(pattern), list(cluster.running)
    target: dict[str, list[Key]] = {name: [] for name in names}
    for layer in cluster.checkpoint.moe_layers:
        shuffled = draws.sample(
            range(cluster.checkpoint.num_experts), cluster.checkpoint.num_experts
        )
        for place, expert in enumerate(shuffled):
            distance = 1 + place // len(names) % (len(names) - 1)
            for replica in range(cluster.plan.coverage):
                target[names[(place + replica * distance) % len(names)]].append((layer, expert))
    return target


def _on_wire(
    label: str, name: str, seconds: float, damage: Callable[[Wire], Awaitable[None]]
) -> Event:
    async def act(cluster: HostedCluster) -> None:
        wire = cluster.experts[name].wire
        assert wire is not None, "the cluster has wires"
        await damage(wire)
        await asyncio.sleep(seconds)
        await wire.restore()

    return Event(label, act)


async def _until_done(call: grpc.aio.UnaryStreamCall) -> None:
    async for _ in call:
        pass


async def _until_phase(call: grpc.aio.UnaryStreamCall, phase: str) -> None:
    async for response in call:
        if PHASES[phase](response):
            return


async def _until_ended(call: grpc.aio.UnaryStreamCall) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):  # as it is to be: who took part is gone
        await _until_done(call)
