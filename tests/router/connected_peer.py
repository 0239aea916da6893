"""A peer that runs, and how to wait for what becomes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from services.model.checkpoint import Checkpoint
from services.router.peers.patience import PATIENCE, Patience
from services.router.peers.peer import ExpertPeer
from tests.router.scripted_service import expected_of


class Connected:
    """A peer of one lane, and its changes."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        address: str,
        frame_floor_seconds: float,
        patience: Patience,
        **wanted: Any,
    ) -> None:
        self._changed = asyncio.Event()
        expected = replace(expected_of(checkpoint), **wanted)
        self.peer = ExpertPeer(
            address, expected, 1, frame_floor_seconds, self._changed.set, patience=patience
        )

    async def until(self, condition: Callable[[], object], timeout_seconds: float = 10.0) -> None:
        """Return once the condition holds; it is looked at after each change."""
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def connected_to(
    checkpoint: Checkpoint,
    address: str,
    frame_floor_seconds: float = 5.0,
    patience: Patience = PATIENCE,
    **wanted: Any,
) -> AsyncIterator[Connected]:
    """A peer of the service there, which need not be there yet; `wanted` are fields of what it
    expects.
    """
    made = Connected(checkpoint, address, frame_floor_seconds, patience, **wanted)
    running = asyncio.create_task(made.peer.run())
    try:
        yield made
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
