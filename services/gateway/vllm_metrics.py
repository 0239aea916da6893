"""What is measured of requests by the names that vLLM gives to it, for dashboards and balancers
that know those.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

from moesaic.v1 import common_pb2
from services.gateway.receipt import phase_nanos, queue_nanos

NANOS_PER_SECOND = 1e9
# Each of ours is one of vLLM's, at the same bounds.
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5),
    *(10, 20, 40, 80, 160, 640, 2560),
)
TOKEN_SECONDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40),
    80,
)
REQUEST_SECONDS = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920),
    7680,
)
TOKENS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
REASONS = {
    common_pb2.FINISH_REASON_STOP: "stop",
    common_pb2.FINISH_REASON_LENGTH: "length",
}
ABORTED = "abort"


class VllmMetrics:
    """Of one gateway; every name has the label `model_name`.

    The share of the KV cache is what requests under way have reserved of it.
    """

    def __init__(
        self,
        model: str,
        *,
        num_running: Callable[[], float],
        num_waiting: Callable[[], float],
        kv_cache_usage: Callable[[], float],
    ) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self._gauge("vllm:num_requests_running", "at a router", num_running)
        self._gauge("vllm:num_requests_waiting", "between arrival and a router", num_waiting)
        self._gauge("vllm:kv_cache_usage_perc", "share reserved, of 1", kv_cache_usage)
        self.prompt_tokens = self._counter("vllm:prompt_tokens_total", "of completed requests")
        self.generation_tokens = self._counter("vllm:generation_tokens_total", "that came")
        self._success = Counter(
            "vllm:request_success_total",
            "requests that ended",
            ("model_name", "finished_reason"),
            registry=self._registry,
        )
        self.first_token = self._histogram(
            "vllm:time_to_first_token_seconds", "from arrival", FIRST_TOKEN_SECONDS
        )
        self.inter_token = self._histogram(
            "vllm:inter_token_latency_seconds", "between two tokens", TOKEN_SECONDS
        )
        self.per_token = self._histogram(
            "vllm:request_time_per_output_token_seconds", "a request's mean", TOKEN_SECONDS
        )
        self.end_to_end = self._histogram(
            "vllm:e2e_request_latency_seconds", "from arrival to end", REQUEST_SECONDS
        )
        self.queue = self._histogram(
            "vllm:request_queue_time_seconds", "until the first step", REQUEST_SECONDS
        )
        self.prefill = self._histogram(
            "vllm:request_prefill_time_seconds", "of the prompt", REQUEST_SECONDS
        )
        self.decode = self._histogram(
            "vllm:request_decode_time_seconds", "of what follows", REQUEST_SECONDS
        )
        self.request_prompt_tokens = self._histogram(
            "vllm:request_prompt_tokens", "of a request", TOKENS
        )
        self.request_generation_tokens = self._histogram(
            "vllm:request_generation_tokens", "of a request", TOKENS
        )

    @contextmanager
    def exported(self, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
        """Show them to Prometheus for as long as the block lasts, beside what is there."""
        registry.register(self)
        try:
            yield
        finally:
            registry.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not compared with those of another gateway in this process."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What was measured so far."""
        return self._registry.collect()

    def count_end(self, reason: str) -> None:
        """A request ended for this reason."""
        self._success.labels(self._model, reason).inc()

    def _gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        gauge = Gauge(name, about, ("model_name",), registry=self._registry)
        gauge.labels(self._model).set_function(value)

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(name, about, ("model_name",), registry=self._registry).labels(self._model)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            name, about, ("model_name",), registry=self._registry, buckets=buckets
        ).labels(self._model)


@dataclass(slots=True)
class _Times:
    """Of one continuation's tokens, in seconds."""

    first: float
    last: float
    num_tokens: int = 0


class VllmRequest:
    """Measures one request; to be made when it arrives."""

    def __init__(self, metrics: VllmMetrics) -> None:
        self._metrics = metrics
        self._arrived = time.monotonic()
        self._choices: dict[int, _Times] = {}
        self._is_completed = False

    def note_tokens(self, num_tokens: int, choice: int) -> None:
        """Some tokens of a continuation came."""
        if not num_tokens:
            return
        now, times = time.monotonic(), self._choices.get(choice)
        if times is None:
            self._choices[choice] = times = _Times(now, now)
            self._metrics.first_token.observe(now - self._arrived)
        else:
            for _ in range(num_tokens):
                self._metrics.inter_token.observe((now - times.last) / num_tokens)
        times.last = now
        times.num_tokens += num_tokens
        self._metrics.generation_tokens.inc(num_tokens)

    def note_completion(
        self,
        choice: int,
        reason: common_pb2.FinishReason.ValueType,
        usage: common_pb2.Usage,
        receipt: common_pb2.LatencyReceipt,
    ) -> None:
        """One of its continuations ended well. Each counts as a request, prompt and all: so they do
        in vLLM, where a request for several becomes one for each.
        """
        metrics, now = self._metrics, time.monotonic()
        self._is_completed = True
        metrics.count_end(REASONS.get(reason, ABORTED))
        metrics.prompt_tokens.inc(usage.prompt_tokens)
        metrics.request_prompt_tokens.observe(usage.prompt_tokens)
        metrics.request_generation_tokens.observe(usage.completion_tokens)
        metrics.end_to_end.observe(now - self._arrived)
        times = self._choices.get(choice)
        if times is not None and times.num_tokens > 1:
            metrics.per_token.observe((times.last - times.first) / (times.num_tokens - 1))
        metrics.queue.observe(queue_nanos(receipt) / NANOS_PER_SECOND)
        metrics.prefill.observe(_seconds(receipt.prefill) - _waited(receipt.prefill))
        metrics.decode.observe(_seconds(receipt.decode))

    def note_failure(self) -> None:
        """It ended otherwise, be it that its client left; not counted after a completion."""
        if not self._is_completed:
            self._metrics.count_end(ABORTED)


def _seconds(phase: common_pb2.PhaseReceipt) -> float:
    return phase_nanos(phase) / NANOS_PER_SECOND


def _waited(phase: common_pb2.PhaseReceipt) -> float:
    return phase.step_wait_nanos / NANOS_PER_SECOND
