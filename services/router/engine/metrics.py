"""What the router counts: steps, tokens, time by part, and what waits."""

from collections import Counter
from collections.abc import Callable, Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.model.kv_cache import KvCache
from services.router.engine.scheduler import Scheduler
from services.router.engine.step import Step
from services.router.engine.token_gaps import TokenGaps
from services.router.lanes.choice import Lanes
from services.router.times.receipt import Parts
from services.router.times.retry_reasons import RETRY_REASONS

STEPS = "moesaic.router.steps"
STEP_TOKENS = "moesaic.router.step.tokens"
DRAWN_TOKENS = "moesaic.router.drawn_tokens"
PART_SECONDS = "moesaic.router.step.part.duration"
STRAGGLERS = "moesaic.router.stragglers"
SEQUENCES = "moesaic.router.sequences"
FREE_KV_TOKENS = "moesaic.router.kv_cache.free_tokens"
RETRIES = "moesaic.router.retries"
HEDGES = "moesaic.router.hedges"
LANES = "moesaic.router.lanes"
CANDIDATE_LANES = "moesaic.router.lanes.candidate"
LAYER_COMMUNICATION = "moesaic.router.lanes.layer_communication"
LAYER_COMPUTE = "moesaic.router.lanes.layer_compute"
LANE_TOKEN_RATE = "moesaic.router.lanes.token_rate"

# Services that are named; a fleet whose services are replaced again and again would else add series
# without end.
MAX_SERVICES = 256
OTHER = "other"

meter = metrics.get_meter(__name__)


class StepMetrics:
    """Counts steps as they end and observes what is in flight.

    Counts are kept here and read when metrics are collected: a step pays for no instrument.
    """

    def __init__(self, scheduler: Scheduler, cache: KvCache) -> None:
        self.num_steps = self.num_drawn = 0
        self.parts = Parts()
        self.token_gaps = TokenGaps()
        self._services: set[str] = set()
        self.stragglers: Counter[str] = Counter()
        self._retries: Counter[tuple[str, str]] = Counter()
        self._hedges: Counter[tuple[str, bool]] = Counter()
        self._step_tokens = meter.create_histogram(
            STEP_TOKENS, "{token}", "tokens computed in one step"
        )

        def parts(_: CallbackOptions) -> Iterable[Observation]:
            for part, nanos in vars(self.parts).items():
                yield Observation(nanos / 1e9, {"part": part})

        def stragglers(_: CallbackOptions) -> Iterable[Observation]:
            for service in self._services | {*self.stragglers.copy()}:
                yield Observation(self.stragglers[service], {"service": service})

        def retries(_: CallbackOptions) -> Iterable[Observation]:
            known = {(name, reason) for name in self._services.copy() for reason in RETRY_REASONS}
            for service, reason in known | {*self._retries.copy()}:
                frames = self._retries[service, reason]
                yield Observation(frames, {"service": service, "reason": reason})

        counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
        counter(HEDGES, [self._observe_hedges], "{frame}", "copies of frames, by who was late")
        counter(STEPS, [_reading(lambda: self.num_steps)], "{step}", "steps computed")
        counter(DRAWN_TOKENS, [_reading(lambda: self.num_drawn)], "{token}", "tokens drawn")
        counter(PART_SECONDS, [parts], "s", "time of steps by part of the critical path")
        counter(
            RETRIES,
            [retries],
            "{frame}",
            "frames sent again, by the service that failed them and why",
        )
        counter(STRAGGLERS, [stragglers], "{layer}", "layers by the service that cost most of each")
        gauge(
            SEQUENCES,
            [_reading(lambda: scheduler.num_sequences)],
            "{sequence}",
            "sequences in flight",
        )
        gauge(
            FREE_KV_TOKENS,
            [_reading(lambda: cache.pool.free_tokens)],
            "{token}",
            "tokens the KV cache has room for",
        )

    def expect(self, services: Iterable[str]) -> None:
        """Have counts of these be there before their first frame fails, or is late."""
        for service in services:
            self._named(service)

    def record(self, step: Step, num_drawn: int) -> None:
        """Count a step that has ended."""
        self.num_steps += 1
        self.num_drawn += num_drawn
        self.parts.add(step.clock.parts)
        for service, layers in step.clock.stragglers.items():
            self.stragglers[self._named(service)] += layers
        for (service, reason), frames in step.clock.retries.items():
            self._retries[self._named(service), reason] += frames
        for (service, has_won), frames in step.clock.hedges.items():
            self._hedges[self._named(service), has_won] += frames
        self._step_tokens.record(step.num_tokens)
        self.token_gaps.note(step.lane, step.clock.ended, step.prefilling.count(False))

    def _observe_hedges(self, _: CallbackOptions) -> Iterable[Observation]:
        known = {(service, won) for service in self._services.copy() for won in (True, False)}
        for service, has_won in known | {*self._hedges.copy()}:
            outcome = "won" if has_won else "late"
            frames = self._hedges[service, has_won]
            yield Observation(frames, {"service": service, "outcome": outcome})

    def _named(self, service: str) -> str:
        if service not in self._services and len(self._services) < MAX_SERVICES:
            self._services.add(service)
        return service if service in self._services else OTHER


def observe_lanes(lanes: Lanes) -> None:
    """Observe the choice of lanes and what it rests on."""

    def in_use(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(lanes.choice.lanes, {"reason": lanes.choice.why.value})

    def token_rates(_: CallbackOptions) -> Iterable[Observation]:
        for num_lanes, rate in lanes.evidence().tokens_per_second.items():
            yield Observation(rate, {"lanes": num_lanes})

    gauge = meter.create_observable_gauge
    gauge(LANES, [in_use], "{lane}", "lanes in use, and why so many")
    gauge(
        LANE_TOKEN_RATE,
        [token_rates],
        "{token}/s",
        "tokens drawn a second in the latest trial, by lanes",
    )
    gauge(
        CANDIDATE_LANES,
        [_reading(lambda: lanes.evidence().candidate)],
        "{lane}",
        "lanes that the times suggest",
    )
    gauge(
        LAYER_COMMUNICATION,
        [_reading(lambda: lanes.evidence().communication)],
        "s",
        "one way to the experts",
    )
    gauge(
        LAYER_COMPUTE,
        [_reading(lambda: lanes.evidence().compute)],
        "s",
        "a layer's slower part: router's or experts'",
    )


def _reading(value: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(value())

    return observe
