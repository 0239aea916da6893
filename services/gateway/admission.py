"""Bounds how much waits in the gateway, and refuses the rest at once."""

import time
from collections import deque
from collections.abc import Callable

from opentelemetry import metrics

from services.gateway.refusals import Bound, refuse

WAITING_REQUESTS = "moesaic.gateway.waiting.requests"
WAITING_TOKENS = "moesaic.gateway.waiting.tokens"

_meter = metrics.get_meter(__name__)
_waiting_requests = _meter.create_up_down_counter(
    WAITING_REQUESTS, unit="{request}", description="requests between arrival and a router"
)
_waiting_tokens = _meter.create_up_down_counter(
    WAITING_TOKENS, unit="{token}", description="prompt tokens between arrival and a router"
)

# The pace of departures is taken from this many of the last ones.
REMEMBERED_DEPARTURES = 32
MIN_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 30.0


class Admission:
    """Counts what waits, from a request's arrival until a router takes it, whatever it
    waits for.
    """

    def __init__(
        self, *, max_requests: int, max_tokens: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._clock = clock
        self._departures: deque[float] = deque(maxlen=REMEMBERED_DEPARTURES)
        self.num_requests = 0
        self.num_tokens = 0

    def enter(self) -> "Place":
        """A place for one more request; raises Overloaded when as many as may wait already."""
        if self.num_requests >= self._max_requests:
            raise refuse(
                Bound.WAITING_REQUESTS,
                f"{self.num_requests} requests are waiting already; the limit is "
                f"{self._max_requests}",
                retry_after_seconds=self._expected_wait_seconds(),
            )
        return Place(self)

    def check_tokens(self, num_tokens: int) -> None:
        """Raises Overloaded when `num_tokens` more would be too many; where none wait, any number
        may.
        """
        if self.num_tokens and self.num_tokens + num_tokens > self._max_tokens:
            raise refuse(
                Bound.WAITING_TOKENS,
                f"{self.num_tokens} prompt tokens are waiting already; {num_tokens} more would "
                "pass the "
                f"limit of {self._max_tokens}",
                retry_after_seconds=self._expected_wait_seconds(),
            )

    def count(self, num_requests: int, num_tokens: int) -> None:
        """Add to what waits; negative when it leaves."""
        if num_requests < 0:
            self._departures.append(self._clock())
        self.num_requests += num_requests
        self.num_tokens += num_tokens
        _waiting_requests.add(num_requests)
        _waiting_tokens.add(num_tokens)

    def _expected_wait_seconds(self) -> float:
        """Until those that wait have left, at the pace of the last departures."""
        if len(self._departures) < 2:
            return 1.0
        pace = (self._clock() - self._departures[0]) / len(self._departures)
        return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, pace * self.num_requests))


class Place:
    """One request's share of the bounded queue; to be left exactly when it stops waiting."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._num_tokens = 0
        self._is_waiting = False
        self.resume()

    def claim(self, num_tokens: int) -> None:
        """Count the prompt's tokens, known now; raises Overloaded when they are too many."""
        self._admission.check_tokens(num_tokens)
        self._num_tokens = num_tokens
        self._admission.count(0, num_tokens)

    def leave(self) -> None:
        """It waits no longer. May be called again."""
        if self._is_waiting:
            self._is_waiting = False
            self._admission.count(-1, -self._num_tokens)

    def resume(self) -> None:
        """It waits again: a router gave it back. Never refused, for it was admitted before."""
        if not self._is_waiting:
            self._is_waiting = True
            self._admission.count(1, self._num_tokens)
