"""What is measured of each request, by the names that OpenTelemetry gives to serving language
models.
"""

import asyncio
import time
from collections import Counter

from opentelemetry import metrics

from moesaic.v1 import common_pb2
from services.gateway.vllm_metrics import VllmMetrics, VllmRequest
from services.wire.errors import ServingError

REQUEST_DURATION = "gen_ai.server.request.duration"
TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"
TIME_PER_OUTPUT_TOKEN = "gen_ai.server.time_per_output_token"

# Those that the semantic conventions advise, and finer ones below a tenth of a second.
_DURATION_BUCKETS = (
    *(0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32),
    *(0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06),
    *(0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_PER_TOKEN_BUCKETS = (
    *(0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.035, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)

_meter = metrics.get_meter(__name__)
_request_duration = _meter.create_histogram(
    REQUEST_DURATION,
    unit="s",
    description="from a request's arrival to its end",
    explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
)
_time_to_first_token = _meter.create_histogram(
    TIME_TO_FIRST_TOKEN,
    unit="s",
    description="from a request's arrival to its first token",
    explicit_bucket_boundaries_advisory=_FIRST_TOKEN_BUCKETS,
)
_time_per_output_token = _meter.create_histogram(
    TIME_PER_OUTPUT_TOKEN,
    unit="s",
    description="between tokens after the first one",
    explicit_bucket_boundaries_advisory=_PER_TOKEN_BUCKETS,
)


class RequestMetrics:
    """Times one request; to be made when it arrives. What is measured goes by the names of
    `aliases`, too, where there are any.
    """

    def __init__(self, *, operation: str, model: str, aliases: VllmMetrics | None = None) -> None:
        self._aliased = None if aliases is None else VllmRequest(aliases)
        self._attributes = {"gen_ai.operation.name": operation, "gen_ai.request.model": model}
        self._arrived_seconds = time.monotonic()
        self._first_token_seconds: float | None = None
        # Of each continuation.
        self._num_tokens: Counter[int] = Counter()

    def record_tokens(self, num_tokens: int, choice: int = 0) -> None:
        """Some tokens of a continuation came."""
        if self._aliased is not None:
            self._aliased.note_tokens(num_tokens, choice)
        if num_tokens and self._first_token_seconds is None:
            self._first_token_seconds = time.monotonic()
            _time_to_first_token.record(
                self._first_token_seconds - self._arrived_seconds, self._attributes
            )
        self._num_tokens[choice] += num_tokens

    @property
    def first_token_nanos(self) -> int | None:
        """From the request's arrival to its first token, once that came."""
        if self._first_token_seconds is None:
            return None
        return round((self._first_token_seconds - self._arrived_seconds) * 1e9)

    def record_completion(
        self,
        choice: int,
        reason: common_pb2.FinishReason.ValueType,
        usage: common_pb2.Usage,
        receipt: common_pb2.LatencyReceipt,
    ) -> None:
        """It ended well; or one of its continuations did."""
        if self._aliased is not None:
            self._aliased.note_completion(choice, reason, usage, receipt)

    def record_end(self, error: BaseException | None) -> None:
        """The request ended; with `error` where it did not end well, its client's
        leaving included.
        """
        if self._aliased is not None and error is not None:
            self._aliased.note_failure()
        now = time.monotonic()
        attributes = self._attributes | ({} if error is None else {"error.type": error_type(error)})
        _request_duration.record(now - self._arrived_seconds, attributes)
        longest = max(self._num_tokens.values(), default=0)  # the choices run at the same time
        if self._first_token_seconds is not None and longest > 1:
            per_token = (now - self._first_token_seconds) / (longest - 1)
            _time_per_output_token.record(per_token, attributes)


def error_type(error: BaseException) -> str:
    """The status that an error travels as; CANCELLED for a client that left."""
    if isinstance(error, ServingError):
        return str(error.status.name)
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "INTERNAL"
