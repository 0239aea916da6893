"""Bounds how much waits in the gateway, and refuses the rest at once."""

import time
from collections import Counter, deque
from collections.abc import Callable

from opentelemetry import metrics

from services.gateway.refusals import Bound, refuse
from services.gateway.shares import share_of

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
    waits for. One client has at most `client_share` of either bound.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_tokens: int,
        client_share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self.max_client_requests = share_of(max_requests, client_share)
        self.max_client_tokens = share_of(max_tokens, client_share)
        self._clock = clock
        self._departures: deque[float] = deque(maxlen=REMEMBERED_DEPARTURES)
        self._requests: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self.num_requests = 0
        self.num_tokens = 0
        _waiting_requests.add(0)
        _waiting_tokens.add(0)

    def check(self, client: str) -> None:
        """Raises Overloaded when as many requests as may wait already, of all or of this client."""
        self._check_requests(client, 1)

    def enter(self, client: str) -> "Place":
        """A place for one more request; raises as `check` does."""
        self.check(client)
        return Place(self, client)

    def enter_more(self, client: str, count: int) -> "list[Place]":
        """Places for what a request that has one asks for besides. Raises Overloaded where they
        would be too many; where nothing else waits, any number may.
        """
        if count:
            self._check_requests(client, count, num_own=1)
        return [Place(self, client) for _ in range(count)]

    def check_tokens(self, client: str, num_tokens: int) -> None:
        """Raises Overloaded when `num_tokens` more would be too many; where none wait, any number
        may.
        """
        for waiting, limit, whose in (
            (self.num_tokens, self._max_tokens, ""),
            (self._tokens[client], self.max_client_tokens, " of this client"),
        ):
            if waiting and waiting + num_tokens > limit:
                raise refuse(
                    Bound.WAITING_TOKENS,
                    f"{waiting} prompt tokens{whose} are waiting already; {num_tokens} more would "
                    f"pass the limit of {limit}",
                    retry_after_seconds=self._expected_wait_seconds(),
                )

    def count(self, client: str, num_requests: int, num_tokens: int) -> None:
        """Add to what waits; negative when it leaves."""
        if num_requests < 0:
            self._departures.append(self._clock())
        self.num_requests += num_requests
        self.num_tokens += num_tokens
        for counter, change in ((self._requests, num_requests), (self._tokens, num_tokens)):
            counter[client] += change
            if not counter[client]:
                del counter[client]
        _waiting_requests.add(num_requests)
        _waiting_tokens.add(num_tokens)

    def _check_requests(self, client: str, count: int, *, num_own: int = 0) -> None:
        """Raises Overloaded where others wait and `count` more would be too many; `num_own` of what
        waits are no others.
        """
        for waiting, limit, whose in (
            (self.num_requests, self._max_requests, ""),
            (self._requests[client], self.max_client_requests, " of this client"),
        ):
            if waiting > num_own and waiting + count > limit:
                raise refuse(
                    Bound.WAITING_REQUESTS,
                    f"{waiting - num_own} requests{whose} are waiting already; the limit is "
                    f"{limit}",
                    retry_after_seconds=self._expected_wait_seconds(),
                )

    def _expected_wait_seconds(self) -> float:
        """Until those that wait have left, at the pace of the last departures."""
        if len(self._departures) < 2:
            return 1.0
        pace = (self._clock() - self._departures[0]) / len(self._departures)
        return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, pace * self.num_requests))


class Place:
    """One request's share of the bounded queue; to be left exactly when it stops waiting."""

    def __init__(self, admission: Admission, client: str) -> None:
        self._admission = admission
        self._client = client
        self._num_tokens = 0
        self._is_waiting = False
        self.resume()

    def claim(self, num_tokens: int, *others: "Place") -> None:
        """Count the prompt's tokens, known now, for this place and for others of the same request;
        raises Overloaded when they are too many.
        """
        self._admission.check_tokens(self._client, num_tokens * (1 + len(others)))
        for place in (self, *others):
            place._num_tokens = num_tokens
            self._admission.count(self._client, 0, num_tokens)

    def leave(self) -> None:
        """It waits no longer. May be called again."""
        if self._is_waiting:
            self._is_waiting = False
            self._admission.count(self._client, -1, -self._num_tokens)

    def resume(self) -> None:
        """It waits again: a router gave it back. Never refused, for it was admitted before."""
        if not self._is_waiting:
            self._is_waiting = True
            self._admission.count(self._client, 1, self._num_tokens)
