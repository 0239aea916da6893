"""Fleets over real expert services in this process, which can be stopped, drained, and
looked into.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.expert.app import ExpertParts, build
from services.expert.app import running as running_expert
from services.expert.hosting import ExpertState
from services.expert.settings import ExpertSettings
from services.model.checkpoint import Checkpoint
from services.router.dispatch.placement import Placement
from services.router.hosting.fleet import Fleet
from services.router.hosting.operations import OperationProgress
from services.router.planning.goals import Goal
from services.wire.expert_key import ExpertKey
from tests.router.scripted_service import expected_of

SECONDS = 30.0  # far more than anything here takes

Keys = frozenset[ExpertKey]


class LocalExperts:
    """Expert services in this process, by address."""

    def __init__(self, model: Path) -> None:
        self.parts: dict[str, ExpertParts] = {}
        self._model = model
        parts = build(ExpertSettings(model=model, expert_memory="16MiB"))
        self._slot_bytes = parts.bank.slot_bytes
        parts.close()
        self._stops: dict[str, asyncio.Event] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}

    async def start(
        self, *, num_slots: int | None = None, listen: str = "127.0.0.1:0", **settings: Any
    ) -> str:
        """Start one with memory for so many experts, unset for plenty; its address."""
        if num_slots is not None:
            settings["expert_memory"] = num_slots * self._slot_bytes
        fields: dict[str, Any] = {
            "listen": listen,
            "model": self._model,
            "drain_seconds": 0,
        } | settings
        wanted = ExpertSettings(**fields)
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()

        async def life() -> None:
            async with running_expert(wanted) as (parts, port):
                address = f"127.0.0.1:{port}"
                self.parts[address] = parts
                started.set_result(address)
                await stop.wait()
                del self.parts[address]

        task = asyncio.create_task(life())
        async with asyncio.timeout(SECONDS):
            await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        address = started.result()
        self._stops[address], self._lives[address] = stop, task
        return address

    async def stop(self, address: str) -> None:
        """Stop one, whatever it is busy with."""
        self._stops.pop(address).set()
        await self._lives.pop(address)

    async def stop_all(self) -> None:
        """Stop every one that there is."""
        for address in list(self._lives):
            await self.stop(address)

    def hosted(self, address: str) -> Keys:
        """What is ready on one, as it says itself."""
        return frozenset(
            ExpertKey(key.layer, key.expert)
            for key, hosted in self.parts[address].hosting.snapshot().experts
            if hosted.state is ExpertState.READY
        )

    def num_taken(self, address: str) -> int:
        """Experts that take memory on one, whatever their state."""
        return self.parts[address].hosting.num_hosted


class LocalFleet:
    """A fleet that runs, with its newest placement."""

    def __init__(self, checkpoint: Checkpoint, targets: Sequence[str], **wanted: Any) -> None:
        self.placement = Placement()
        self.num_placements = 0
        fields: dict[str, Any] = {
            "num_lanes": 1,
            "frame_floor_seconds": 1.0,
            "place": self._place,
            "name": "router-1",
        }
        self.fleet = Fleet(
            checkpoint,
            targets,
            expected_of(checkpoint),
            **fields | wanted,
        )

    def _place(self, placement: Placement) -> None:
        self.placement = placement
        self.num_placements += 1

    async def until(self, holds: Any) -> None:
        """Return once `holds()` does; looked at whenever something has changed."""
        async with asyncio.timeout(SECONDS):
            while not holds():
                await self.fleet.changed.wait()

    async def change(
        self, goal: Goal, name: str = "", *, force: bool = False
    ) -> list[OperationProgress]:
        """Carry out an operation; what was told of it."""
        async with asyncio.timeout(SECONDS):
            return [
                progress async for progress in self.fleet.change(name, goal, force=force).follow()
            ]


@asynccontextmanager
async def local_experts(model: Path) -> AsyncIterator[LocalExperts]:
    """Services that are stopped at the end."""
    experts = LocalExperts(model)
    try:
        yield experts
    finally:
        await experts.stop_all()


@asynccontextmanager
async def running_fleet(
    checkpoint: Checkpoint, targets: Sequence[str], **wanted: Any
) -> AsyncIterator[LocalFleet]:
    """A fleet with every expert hosted."""
    made = LocalFleet(checkpoint, targets, **wanted)
    task = asyncio.create_task(made.fleet.run(SECONDS))
    try:
        async with asyncio.timeout(SECONDS):
            complete = asyncio.ensure_future(made.fleet.complete())
            await asyncio.wait([task, complete], return_when=asyncio.FIRST_COMPLETED)
            complete.cancel()
            if task.done():
                task.result()
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def several(
    model: Path, count: int, **settings: Any
) -> AsyncIterator[tuple[LocalExperts, list[str]]]:
    """So many services, all alike, by their addresses in order."""
    async with local_experts(model) as experts:
        yield experts, sorted([await experts.start(**settings) for _ in range(count)])
