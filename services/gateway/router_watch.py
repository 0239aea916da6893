"""Notices a router that has work and says nothing for longer than its work may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from services.runtime.grown_patience import GrownPatience
from services.runtime.mean_by_size import MeanBySize
from services.wire.errors import ServingError, Unavailable

# Until something was measured: a router that has just started computes slowly.
UNMEASURED_SECONDS = 10.0
FLOOR_SECONDS = 0.2
# As many times the usual; it costs a question, and no more, where the router answers that.
FACTOR = 4.0
SMOOTHING = 0.1
PROBE_SECONDS = 0.2
# A router that was given up, and answers this soon after, was slow and did not hang: it is given
# more time, and less again as time goes by.
SLOW_SECONDS = 1.0
MAX_PATIENCE = 4.0
PATIENCE_HALF_LIFE_SECONDS = 30.0


class TokenExpectation:
    """How long a router may say nothing, by how many tokens it has to compute: a running mean of
    the time for each token, by powers of two of their number.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds_per_token = MeanBySize(SMOOTHING)
        self._patience = GrownPatience(MAX_PATIENCE, PATIENCE_HALF_LIFE_SECONDS, clock)

    def seconds(self, num_tokens: int) -> float:
        """The most that so many tokens may take it until it says something."""
        usual = self._seconds_per_token.fitted(num_tokens)
        if usual is None:
            return UNMEASURED_SECONDS
        return max(FLOOR_SECONDS, FACTOR * usual) * self._patience.factor()

    def observe(self, num_tokens: int, seconds: float) -> None:
        """It had so many to compute, and said something after this time."""
        self._seconds_per_token.add(num_tokens, seconds / num_tokens)

    def grow(self) -> None:
        """It was given up too soon."""
        self._patience.grow()


class RouterWatch:
    """Watches what one router says while it has work.

    `ask` is a question that any router answers at once whose process runs; `is_needed` says whether
    somebody else could do the work: one router alone is waited for, until its connection breaks.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._expectation = TokenExpectation(clock)
        self._num_tokens = 0
        self._marked_at = 0.0  # when it spoke of its work last, or got some
        # Of the tokens those that it had to compute then; None until that is said. What came later
        # it may not have begun with when it speaks next.
        self._num_marked: int | None = None
        self._heard_at = 0.0  # of its work or else
        self._given_up_at: float | None = None
        self._has_work = asyncio.Event()

    @property
    def has_given_up(self) -> bool:
        """Whether the last stream ended since the router said nothing any more."""
        return self._given_up_at is not None

    def begin(self) -> None:
        """A new stream to it is up."""
        if self._given_up_at is not None and self._clock() - self._given_up_at < SLOW_SECONDS:
            self._expectation.grow()
        self._given_up_at = None
        self.note_work(0)

    def note_work(self, num_tokens: int) -> None:
        """It has so many tokens to compute from now on."""
        if not self._num_tokens:
            self._heard_at = self._clock()
            self._mark()
        if self._num_marked is None:
            self._num_marked = num_tokens
        self._num_tokens = num_tokens
        if num_tokens:
            self._has_work.set()
        else:
            self._has_work.clear()

    def hear(self, *, of_work: bool) -> None:
        """It has said something, of its work or else; what is left of that `note_work` says
        next.
        """
        self._heard_at = self._clock()
        if of_work:
            if self._num_marked:
                self._expectation.observe(self._num_marked, self._heard_at - self._marked_at)
            self._mark()

    def _mark(self) -> None:
        self._marked_at, self._num_marked = self._heard_at, None

    async def run(
        self, ask: Callable[[float], Awaitable[object]], is_needed: Callable[[], bool]
    ) -> None:
        """Watch; raises Unavailable when the router says nothing any more."""
        while True:
            await self._until_overdue()
            if not await self._answers(ask) and is_needed():
                self._given_up_at = self._clock()
                raise Unavailable(f"{self._name} says nothing any more, though it has work")
            self._heard_at = self._clock()

    async def _until_overdue(self) -> None:
        while True:
            await self._has_work.wait()
            due = self._heard_at + self._expectation.seconds(self._num_tokens)
            if (left := due - self._clock()) <= 0:
                return
            await asyncio.sleep(min(left, FLOOR_SECONDS))  # less may be expected by then

    async def _answers(self, ask: Callable[[float], Awaitable[object]]) -> bool:
        heard_at = self._heard_at
        try:
            await ask(PROBE_SECONDS)
        except ServingError:
            return self._heard_at != heard_at  # it was heard meanwhile
        return True
