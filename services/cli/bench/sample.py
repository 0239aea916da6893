"""One request of a load: when it was due, when its tokens came, and how it ended."""

from dataclasses import dataclass, field

from moesaic.v1 import generation_pb2
from services.cli.bench.statistics import percentile, token_intervals

NANOS_PER_SECOND = 1e9


@dataclass(frozen=True)
class RequestFailure:
    """Why a request has no completion: the name of its gRPC status, or one of HTTP, and what the
    server said.
    """

    status: str
    message: str
    retry_after_seconds: float | None = None


@dataclass(slots=True)
class Sample:
    """What was seen of one request; moments are nanoseconds of the monotonic clock.

    It has neither `completion` nor `failure` while it is in flight, and never gets one when the
    load is broken off. Latencies count from `due_nanos`, the moment at which it should have been
    sent: a client that could not keep up must not make the server look better.
    """

    number: int
    due_nanos: int
    sent_nanos: int
    # One for each message that brought tokens, and how many those were.
    arrival_nanos: list[int] = field(default_factory=list)
    arrival_tokens: list[int] = field(default_factory=list)
    ended_nanos: int | None = None
    completion: generation_pb2.Completion | None = None
    failure: RequestFailure | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that came, whatever became of the request."""
        return sum(self.arrival_tokens)

    @property
    def first_token_seconds(self) -> float | None:
        """From due to the first token (TTFT)."""
        return self._since_due(self.arrival_nanos[0]) if self.arrival_nanos else None

    @property
    def end_to_end_seconds(self) -> float | None:
        """From due to the end of the response (E2E)."""
        return self._since_due(self.ended_nanos) if self.ended_nanos is not None else None

    @property
    def interval_seconds(self) -> list[float]:
        """The times between tokens (ITL), as `token_intervals` has them."""
        intervals = token_intervals(self.arrival_nanos, self.arrival_tokens)
        return [nanos / NANOS_PER_SECOND for nanos in intervals]

    @property
    def per_token_seconds(self) -> float | None:
        """The mean time for a token after the first (TPOT); None with fewer than two tokens."""
        if self.num_tokens < 2:
            return None
        return (
            (self.arrival_nanos[-1] - self.arrival_nanos[0])
            / NANOS_PER_SECOND
            / (self.num_tokens - 1)
        )

    @property
    def slow_interval_seconds(self) -> float | None:
        """The 99th percentile of its times between tokens; None with fewer than two tokens."""
        intervals = self.interval_seconds
        return percentile(intervals, 99) if intervals else None

    @property
    def late_seconds(self) -> float:
        """From due to sent."""
        return self._since_due(self.sent_nanos)

    def _since_due(self, nanos: int) -> float:
        return (nanos - self.due_nanos) / NANOS_PER_SECOND
