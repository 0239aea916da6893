"""What the service counts and measures, by the OpenTelemetry API; nothing is recorded where no
reader is configured.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from moesaic.v1 import expert_pb2
from services.expert.admitted_frame import AdmittedFrame, FrameAnswer
from services.expert.compute import Computed
from services.wire.outcomes import PASSING_REASONS, PairFailure

FRAMES = "moesaic.expert.frames"
PAIRS = "moesaic.expert.pairs"
COMPUTE_DURATION = "moesaic.expert.compute.duration"
BATCHES = "moesaic.expert.batches"
BATCH_FRAMES = "moesaic.expert.batch.frames"
ACTIVE_EXPERTS = "moesaic.expert.active"
WAITING_PAIRS = "moesaic.expert.waiting.pairs"
HOSTED_EXPERTS = "moesaic.expert.hosted"
MEMORY_USED = "moesaic.expert.memory.used"
MEMORY_LIMIT = "moesaic.expert.memory.limit"
LOST_SPANS = "moesaic.expert.spans.lost"

COMPUTED = "computed"
FAILED = "failed"
INVALID = "invalid"
PAIR_OUTCOMES = (COMPUTED, *PASSING_REASONS.values(), "cancelled")
FRAME_OUTCOMES = (*PAIR_OUTCOMES, FAILED, INVALID)

SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)

# An instrument's `record` takes as long as a small batch's decoding: histograms get one batch of so
# many.
SAMPLED_BATCHES = 16

meter = metrics.get_meter(__name__)
_compute_duration = meter.create_histogram(
    COMPUTE_DURATION,
    unit="s",
    description="time that a batch was computed",
    explicit_bucket_boundaries_advisory=SECONDS,
)
_batch_frames = meter.create_histogram(
    BATCH_FRAMES, unit="{frame}", description="frames computed together"
)
_active_experts = meter.create_histogram(
    ACTIVE_EXPERTS, unit="{expert}", description="experts that took part in a batch"
)

# Counted here and read when somebody collects: an instrument's `add` costs many times as much for
# every frame.
_frames: Counter[str] = Counter()
_pairs: Counter[str] = Counter()
_batches: Counter[int] = Counter()  # by layer
_lost_spans: Counter[str] = Counter()  # by why


class Counts(NamedTuple):
    """What a native plane has counted since it began, and what waits in it now."""

    computed_frames: int
    computed_pairs: int
    lost_spans: int
    batches: list[int]  # of each layer
    waiting_pairs: int

    @property
    def batches_by_layer(self) -> Counter[int]:
        """Without layers that have none."""
        return Counter({layer: number for layer, number in enumerate(self.batches) if number})


NOTHING = Counts(0, 0, 0, [], 0)
Source = Callable[[], Counts]
_sources: list[Source] = []
# Held where counts move from a source to the counters above, and where they are summed up.
_summing = Lock()


def add_source(source: Source) -> None:
    """Have what it says added to what is counted here."""
    _sources.append(source)


def end_source(source: Source) -> None:
    """Take its last word over: it counts no more."""
    with _summing:
        _sources.remove(source)
        for counted, native in _native_parts(source()):
            counted.update(native)


def _native_parts(counts: Counts) -> tuple[tuple[Counter[Any], Mapping[Any, int]], ...]:
    return (
        (_frames, _unless_zero(COMPUTED, counts.computed_frames)),
        (_pairs, _unless_zero(COMPUTED, counts.computed_pairs)),
        (_batches, counts.batches_by_layer),
        (_lost_spans, _unless_zero("ring_full", counts.lost_spans)),
    )


def _unless_zero(name: str, number: int) -> Mapping[str, int]:
    return {name: number} if number else {}


def record_batch(layer: int, num_frames: int, computed: Computed, nanos: int) -> None:
    """Count a computed batch; what it was like is recorded of some, drawn at random."""
    _batches[layer] += 1
    if random.random() * SAMPLED_BATCHES < 1:
        record_drawn_batch(layer, num_frames, computed.num_active, nanos)


def record_drawn_batch(layer: int, num_frames: int, num_active: int, nanos: int) -> None:
    """Record what a batch was like that was counted already, and drawn at random."""
    attributes = {"layer": layer}
    _compute_duration.record(nanos / 1e9, attributes)
    _batch_frames.record(num_frames)
    _active_experts.record(num_active, attributes)


def record_answer(admitted: AdmittedFrame, answer: FrameAnswer) -> None:
    """Record one answered frame and what became of its pairs."""
    if answer.rows is not None:
        _pairs[COMPUTED] += admitted.num_pairs
    for failure in answer.failures:
        _pairs[outcome_of(failure)] += len(failure.pairs)
    if answer.error is not None:
        _frames[FAILED] += 1
    elif answer.failures:
        _frames[outcome_of(answer.failures[-1])] += 1
    else:
        _frames[COMPUTED] += 1


def record_invalid_frame() -> None:
    """Record a frame that broke the contract."""
    _frames[INVALID] += 1


def outcome_of(failure: PairFailure) -> str:
    """The failure's reason as an attribute: `not_hosted`, `overloaded`, `expired`, `cancelled`."""
    name = expert_pb2.PairFailureReason.Name(failure.reason)
    return name.removeprefix("PAIR_FAILURE_REASON_").lower()


def observe(
    meter: Meter,
    *,
    waiting_pairs: Callable[[], int],
    hosted_experts: Callable[[], int],
    memory_used: Callable[[], int],
    memory_limit: int,
) -> None:
    """Have the service's gauges read from these, and what it counts exported, by a meter."""
    counters: tuple[tuple[str, str, Counter[Any], str, Sequence[str], str], ...] = (
        (FRAMES, "{frame}", _frames, "outcome", FRAME_OUTCOMES, "frames answered"),
        (PAIRS, "{pair}", _pairs, "outcome", PAIR_OUTCOMES, "(row, expert) pairs answered"),
        (BATCHES, "{batch}", _batches, "layer", (), "batches computed"),
        (LOST_SPANS, "{span}", _lost_spans, "reason", ("ring_full",), "spans without a place"),
    )
    for name, unit, counted, attribute, known, description in counters:
        meter.create_observable_counter(
            name, [_counts(counted, attribute, known)], unit=unit, description=description
        )
    gauges: tuple[tuple[str, str, Callable[[], int], str], ...] = (
        (WAITING_PAIRS, "{pair}", waiting_pairs, "pairs that wait for a batch"),
        (HOSTED_EXPERTS, "{expert}", hosted_experts, "experts that take memory here"),
        (MEMORY_USED, "By", memory_used, "memory that experts take"),
        (MEMORY_LIMIT, "By", lambda: memory_limit, "memory that experts may take"),
    )
    for name, unit, value, description in gauges:
        meter.create_observable_gauge(name, [_reading(value)], unit=unit, description=description)


def _reading(value: Callable[[], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value())]


def _counts(
    counted: Counter[Any], attribute: str, known: Sequence[str]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Those `known` are there before their first: rates miss a first one that is not."""

    # Called in a thread of the reader's; a copy of a dictionary is made in one piece.
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        with _summing:
            total: Counter[Any] = Counter(dict.fromkeys(known, 0) | dict(counted))
            for source in _sources:
                for native_counted, native in _native_parts(source()):
                    if native_counted is counted:
                        total.update(native)
        return [Observation(number, {attribute: value}) for value, number in total.items()]

    return observe
