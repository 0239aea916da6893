"""Bursts: exchanges one after the other, of which the first are not counted, and where their
processes may run.
"""

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

# As a step has layers: each comes right after another, and finds caches and cores as that left
# them.
BURST = 16
UNCOUNTED = 4

Burst: TypeAlias = Callable[[], Awaitable[list[float]]]
"""Runs one; the milliseconds of each exchange that counts."""


@dataclass(frozen=True)
class Cores:
    """Where the client's process and the servers' run, by the number of a core; None for wherever
    the kernel's scheduler puts them.
    """

    label: str
    client: int | None = None
    servers: int | None = None


ANY = Cores("any")


def places() -> list[Cores]:
    """Any cores, then one core for all, then one for the client and one for the servers where there
    are two.
    """
    usable = sorted(os.sched_getaffinity(0))
    shared = Cores("one", usable[0], usable[0])
    return [ANY, shared, *(Cores("two", usable[0], other) for other in usable[1:2])]


def burst_of(run: Callable[[], Awaitable[None]]) -> Burst:
    """Of what is all to be timed."""

    async def timed() -> float:
        began = time.perf_counter_ns()
        await run()
        return (time.perf_counter_ns() - began) / 1e6

    return burst_of_timed(timed)


def burst_of_timed(run: Callable[[], Awaitable[float]]) -> Burst:
    """Of what times itself."""

    async def burst() -> list[float]:
        return [await run() for _ in range(BURST)][UNCOUNTED:]

    return burst
