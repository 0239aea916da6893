"""Whether this router plans for all that share expert services: one does while it lives."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from services.router.hosting.waits import WAITS, Waits
from services.router.peers.peer import ExpertPeer
from services.runtime.notice import Notice
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)


class PlannerChoice:
    """Asks the first of the services that is live, by address, again and again.

    Routers see the same services, so that they ask the same one; where they do not for a moment,
    two may plan, and one of them loses each change to the other. `changed` is told when the answer
    is another one.
    """

    def __init__(
        self,
        name: str,
        peers: Callable[[], Sequence[ExpertPeer]],
        changed: Notice,
        *,
        waits: Waits = WAITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._peers = peers
        self._changed = changed
        self._waits = waits
        self._clock = clock
        self._until = 0.0
        self._was_ours = False

    @property
    def is_ours(self) -> bool:
        """Whether this router plans now."""
        return self._clock() < self._until

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._ask()
            if self.is_ours != self._was_ours:
                self._was_ours = self.is_ours
                logger.info(
                    "%s plans where experts are hosted",
                    "this router" if self.is_ours else "another",
                )
                self._changed.send()
            await asyncio.sleep(self._waits.planning_ask_seconds)

    async def _ask(self) -> None:
        for peer in self._peers():
            if not peer.is_live or peer.is_suspect:
                continue
            asked = self._clock()  # this one: others may have left the question unanswered before
            try:
                planner = await peer.hold_planning(self._name, self._waits.planning_hold_seconds)
            except ServingError as error:
                logger.debug("%s", error)
                continue
            if planner == self._name:
                self._until = asked + self._waits.planning_hold_seconds
            return
