"""A service is suspect from a frame's deadline to its next word, and a slow one is given
more time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from services.router.peers.frame_deadline import (
    MAX_PATIENCE,
    PATIENCE_HALF_LIFE_SECONDS,
    FrameDeadline,
)
from services.router.peers.suspicion import PROBE_SECONDS, SLOW_SECONDS, Suspicion
from services.wire.errors import Unavailable
from tests.router.paces import nanos_given


class Probed:
    """A suspicion whose probes a test answers."""

    def __init__(
        self,
        deadline: FrameDeadline | None = None,
        *,
        probe_seconds: float = PROBE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.changed = asyncio.Event()
        self.suspicion = Suspicion(
            "a:1",
            deadline or FrameDeadline(1.0),
            self.changed.set,
            on_probed=self.note_probed,
            probe_seconds=probe_seconds,
            clock=clock,
        )
        self.num_probed = 0
        self.timeouts: list[float] = []
        self.is_answered = asyncio.Event()
        self.was_asked = asyncio.Semaphore(0)

    def note_probed(self) -> None:
        self.num_probed += 1

    async def ask(self, timeout_seconds: float) -> None:
        self.timeouts.append(timeout_seconds)
        self.was_asked.release()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.is_answered.wait()
        except TimeoutError:
            raise Unavailable("no answer") from None

    async def until_trusted(self) -> None:
        while self.suspicion.is_suspect:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def probing(
    suspicion: Suspicion, ask: Callable[[float], Awaitable[None]]
) -> AsyncIterator[None]:
    task = asyncio.create_task(suspicion.probe(ask))
    try:
        async with asyncio.timeout(10):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_silent_service_is_probed_ever_less_often_until_it_answers() -> None:
    probed = Probed()
    async with probing(probed.suspicion, probed.ask):
        probed.suspicion.doubt("no answer")
        for _ in range(3):
            await probed.was_asked.acquire()
        assert probed.suspicion.is_suspect
        assert probed.timeouts[:3] == [0.05, 0.1, 0.2]
        probed.is_answered.set()
        await probed.until_trusted()


async def test_a_reply_ends_the_suspicion_before_a_probe_does() -> None:
    probed = Probed()
    async with probing(probed.suspicion, probed.ask):
        probed.suspicion.doubt("no answer")
        await probed.was_asked.acquire()
        probed.suspicion.heard_reply(is_late=True)
        assert not probed.suspicion.is_suspect
        probed.suspicion.doubt("no answer")
        await probed.was_asked.acquire()


async def test_only_an_answered_probe_is_told_of_when_it_ends_the_doubts() -> None:
    probed = Probed()
    async with probing(probed.suspicion, probed.ask):
        probed.suspicion.doubt("no answer")
        await probed.was_asked.acquire()
        probed.suspicion.heard_reply(is_late=True)
        assert probed.num_probed == 0
        probed.is_answered.set()
        probed.suspicion.doubt("no answer")
        await probed.until_trusted()
        assert probed.num_probed == 1


async def test_only_a_slow_service_is_given_more_time_and_not_one_that_was_stopped() -> None:
    now = [0.0]
    deadline = FrameDeadline(1.0)
    deadline.observe(1, 1)
    probed = Probed(deadline, clock=lambda: now[0])
    probed.suspicion.doubt("no answer")
    probed.suspicion.heard_reply(is_late=True)
    grown = nanos_given(deadline, 1)
    assert 1_500_000_000 < grown <= 2_000_000_000
    probed.suspicion.heard_reply(is_late=True)  # the frame behind it
    probed.suspicion.doubt("no answer")
    now[0] += SLOW_SECONDS
    probed.suspicion.heard_reply(is_late=True)
    assert nanos_given(deadline, 1) <= grown


def test_patience_doubles_up_to_a_bound_and_wears_off() -> None:
    now = [0.0]
    deadline = FrameDeadline(1.0, clock=lambda: now[0])
    deadline.observe(1, 1)
    given = []
    for _ in range(6):
        deadline.grow()
        given.append(nanos_given(deadline, 1) / 1e9)
    assert given == [2, 4, 8, MAX_PATIENCE, MAX_PATIENCE, MAX_PATIENCE]
    now[0] += PATIENCE_HALF_LIFE_SECONDS
    assert nanos_given(deadline, 1) / 1e9 == 1 + (MAX_PATIENCE - 1) / 2
    now[0] += 100 * PATIENCE_HALF_LIFE_SECONDS
    assert nanos_given(deadline, 1) == 1_000_000_000


def test_a_frame_is_given_time_for_those_before_it_and_more_before_any_was_measured() -> None:
    deadline = FrameDeadline(1.0, unmeasured=25.0)
    assert nanos_given(deadline, 1) == 25_000_000_000
    deadline.observe(512, 3_000_000_000)
    prefill = deadline.fitted_nanos(512)
    assert prefill == 3_000_000_000
    deadline.observe(1, 1_000_000)
    assert nanos_given(deadline, 1) == 1_000_000_000
    deadline.begin(prefill)
    assert nanos_given(deadline, 1) == 7_000_000_000
    deadline.end(prefill)
    assert nanos_given(deadline, 1) == 1_000_000_000
