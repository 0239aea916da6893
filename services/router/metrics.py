"""What the router counts: steps, tokens, time by part, and what waits."""

from collections.abc import Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.model.kv_cache import KvCache
from services.router.fleet import Fleet
from services.router.scheduler import Scheduler
from services.router.step import Step

STEPS = "moesaic.router.steps"
STEP_TOKENS = "moesaic.router.step.tokens"
DRAWN_TOKENS = "moesaic.router.drawn_tokens"
PART_SECONDS = "moesaic.router.step.part.duration"
STRAGGLERS = "moesaic.router.stragglers"
SEQUENCES = "moesaic.router.sequences"
FREE_KV_TOKENS = "moesaic.router.kv_cache.free_tokens"
RETRIES = "moesaic.router.retries"
MIN_LIVE_REPLICAS = "moesaic.router.min_live_replicas"
READY_EXPERTS = "moesaic.router.ready_experts"

meter = metrics.get_meter(__name__)


class StepMetrics:
    """Counts steps as they end and observes what is in flight."""

    def __init__(self, scheduler: Scheduler, cache: KvCache) -> None:
        self._steps = meter.create_counter(STEPS, "{step}", "steps computed")
        self._step_tokens = meter.create_histogram(STEP_TOKENS, "{token}", "tokens computed in one step")
        self._drawn = meter.create_counter(DRAWN_TOKENS, "{token}", "tokens drawn")
        self._parts = meter.create_counter(PART_SECONDS, "s", "time of steps by part of the critical path")
        self._retries = meter.create_counter(RETRIES, "{frame}", "frames sent again")
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
        self._retries.add(step.clock.retries)
        for service, layers in step.clock.stragglers.items():
            self._stragglers.add(layers, {"service": service})


def observe_fleet(fleet: Fleet) -> None:
    """Observe how well the experts are covered by the services that are live."""

    def min_live_replicas(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(fleet.min_live_replicas)

    def ready_experts(_: CallbackOptions) -> Iterable[Observation]:
        for address, num_ready in fleet.ready_by_service.items():
            yield Observation(num_ready, {"service": address})

    meter.create_observable_gauge(
        MIN_LIVE_REPLICAS, [min_live_replicas], "{service}", "live services that the least replicated expert is on"
    )
    meter.create_observable_gauge(READY_EXPERTS, [ready_experts], "{expert}", "experts ready, by service")
