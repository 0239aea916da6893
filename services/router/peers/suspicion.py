"""Whether an expert service is believed to hang: raised by a frame's deadline, ended by whatever it
says next.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from services.router.peers.frame_deadline import FrameDeadline
from services.wire.errors import ServingError

logger = logging.getLogger(__name__)

# How long a probe is waited for, and the pause to the next: doubled from one to the other.
PROBE_SECONDS = 0.05
MAX_PROBE_SECONDS = 1.0
# A frame's reply this soon after its service was suspected says that the service was slow, and not
# hung.
SLOW_SECONDS = 0.5


class Suspicion:
    """The doubts about one service. `on_change` is called when they begin and when they end.

    A reply, though late, ends them at once. So does an answered probe, of which `on_probed` is told
    first: whoever answers probes may compute nothing all the same.
    """

    def __init__(
        self,
        address: str,
        deadline: FrameDeadline,
        on_change: Callable[[], None],
        *,
        on_probed: Callable[[], None],
        probe_seconds: float = PROBE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_suspect = False
        self._address = address
        self._deadline = deadline
        self._on_change = on_change
        self._on_probed = on_probed
        self._probe_seconds = probe_seconds
        self._clock = clock
        self._raised = asyncio.Event()
        self._ended = asyncio.Event()
        self._began = 0.0  # seconds of the clock
        self._may_grow = False

    def doubt(self, reason: str) -> None:
        """A frame's deadline passed."""
        if self.is_suspect:
            return
        self.is_suspect, self._may_grow, self._began = True, True, self._clock()
        logger.warning("expert service %s is suspect and avoided: %s", self._address, reason)
        self._ended.clear()
        self._raised.set()
        self._on_change()

    def heard_reply(self, *, is_late: bool) -> None:
        """It answered a frame; late, when the frame had been given up."""
        if is_late and self._may_grow:
            # One reply tells enough: those behind it of a service that was stopped come when it is
            # trusted again.
            self._may_grow = False
            if not self.is_suspect or self._clock() - self._began < SLOW_SECONDS:
                self._deadline.grow()
        if self.is_suspect:
            self._end()

    def forget(self) -> None:
        """The connection is gone, and the doubts about it."""
        if self.is_suspect:
            self.is_suspect = False
            self._raised.clear()
            self._ended.set()

    async def probe(self, ask: Callable[[float], Awaitable[object]]) -> None:
        """Whenever there are doubts, `ask(timeout_seconds)` until it does not fail or a reply came;
        until cancelled.
        """
        while True:
            await self._raised.wait()
            await self._until_answered(ask)
            if self.is_suspect:
                self._on_probed()
                self._end()

    async def _until_answered(self, ask: Callable[[float], Awaitable[object]]) -> None:
        timeout = self._probe_seconds
        while self.is_suspect:
            asked = self._clock()
            try:
                await ask(timeout)
            except ServingError:
                if await self._ended_within(timeout - (self._clock() - asked)):
                    return
                timeout = min(MAX_PROBE_SECONDS, 2 * timeout)
            else:
                return

    async def _ended_within(self, seconds: float) -> bool:
        if self.is_suspect and seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
            except TimeoutError:
                pass
        return not self.is_suspect

    def _end(self) -> None:
        self.is_suspect = False
        seconds = self._clock() - self._began
        logger.info("expert service %s answers again, after %.2f s", self._address, seconds)
        self._raised.clear()
        self._ended.set()
        self._on_change()
