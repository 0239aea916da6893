"""What the router counts: steps, tokens, time by part, and what waits."""

from collections.abc import Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.model.kv_cache import KvCache
from services.router.scheduler import Scheduler
from services.router.step import Step

STEPS = "moesaic.router.steps"
STEP_TOKENS = "moesaic.router.step.tokens"
DRAWN_TOKENS = "moesaic.router.drawn_tokens"
PART_SECONDS = "moesaic.router.step.part.duration"
STRAGGLERS = "moesaic.router.stragglers"
SEQUENCES = "moesaic.router.sequences"
FREE_KV_TOKENS = "moesaic.router.kv_cache.free_tokens"

meter = metrics.get_meter(__name__)


class StepMetrics:
    """Counts steps as they end and observes what is in flight."""

    def __init__(self, scheduler: Scheduler, cache: KvCache) -> None:
        self._steps = meter.create_counter(STEPS, "{step}", "steps computed")
        self._step_tokens = meter.create_histogram(STEP_TOKENS, "{token}", "tokens computed in one step")
        self._drawn = meter.create_counter(DRAWN_TOKENS, "{token}", "tokens drawn")
        self._parts = meter.create_counter(PART_SECONDS, "s", "time of steps by part of the critical path")
        self._stragglers = meter.create_counter(STRAGGLERS, "{layer}", "layers by the service that replied last")

        def sequences(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(scheduler.num_sequences)

        def free_tokens(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(cache.pool.free_tokens)

        meter.create_observable_gauge(SEQUENCES, [sequences], "{sequence}", "sequences in flight")
        meter.create_observable_gauge(FREE_KV_TOKENS, [free_tokens], "{token}", "tokens the KV cache has room for")

    def record(self, step: Step, num_drawn: int) -> None:
        """Count a step that has ended."""
        self._steps.add(1)
        self._step_tokens.record(step.num_tokens)
        self._drawn.add(num_drawn)
        for part, nanos in vars(step.clock.parts).items():
            self._parts.add(nanos / 1e9, {"part": part})
        for service, layers in step.clock.stragglers.items():
            self._stragglers.add(layers, {"service": service})
