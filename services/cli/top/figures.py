"""What two looks at a cluster say together: rates, shares and times."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moesaic.v1 import placement_pb2, router_pb2
from services.cli.bench.receipts import COMMUNICATION
from services.cli.cost import PHASE_PARTS
from services.cli.hosting.tables import state_of
from services.cli.known import Known
from services.cli.top.look import Look
from services.cli.top.quantiles import Buckets, quantile, since

NANOS = 1e9
Activity = placement_pb2.GetActivityResponse


@dataclass(frozen=True)
class Times:
    """Seconds; None where none were seen in the interval."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class ServiceFigures:
    """One expert service. Shares are of the interval; None where there was nothing to share."""

    name: str
    address: str
    state: str
    num_experts: int
    pairs_per_second: float
    busy_share: float
    queue_seconds: float | None  # that a frame waited there
    frames_in_flight: int
    wire_seconds: float | None  # median
    straggler_share: float | None
    memory_bytes: int
    memory_limit_bytes: int


@dataclass(frozen=True)
class LayerFigures:
    """The experts of a layer: pairs in a mean step, and services that each is ready on."""

    layer: int
    pairs: Sequence[float]
    replicas: Sequence[int]


@dataclass(frozen=True)
class MoveFigures:
    """A change of the placement."""

    operation_id: str
    phase: str
    num_done: int
    num_total: int
    loaded_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Figures:
    """What the cluster does. `waiting` is None where no gateway says it; what waits at routers is
    in `running` only when it computes.
    """

    seconds: float
    tokens_per_second: float
    running: int
    waiting: int
    gateway_is_known: bool
    first_token: Times
    between_tokens: Times
    communication_share: float | None
    services: Sequence[ServiceFigures]
    layers: Sequence[LayerFigures]
    moves: Sequence[MoveFigures]


def figures(before: Look, now: Look, known: Known) -> Figures:
    """What happened between two looks."""
    pairs = [(before.activities[one], activity) for one, activity in now.activities.items()]
    gone = [_Gone.of(*pair) for pair in pairs]
    seconds = max(one.seconds for one in gone)
    at_gateway = {} if now.gateway is None else now.gateway.first_token
    before_gateway = {} if before.gateway is None else before.gateway.first_token
    waiting = sum(one.waiting_sequences for one in now.activities.values())
    return Figures(
        seconds=seconds,
        tokens_per_second=sum(one.drawn_tokens for one in gone) / seconds,
        running=sum(one.running_sequences for one in now.activities.values()),
        waiting=waiting + (now.gateway.num_waiting if now.gateway else 0),
        gateway_is_known=now.gateway is not None,
        first_token=_times(since(before_gateway, at_gateway)),
        between_tokens=_times(_added(one.token_gaps for one in gone)),
        communication_share=_communication([one.parts for one in gone]),
        services=sorted(_services(gone, now, known, seconds), key=lambda one: one.name),
        layers=_layers([*now.activities.values()]),
        moves=[_move(one) for activity in now.activities.values() for one in activity.operations],
    )


@dataclass(frozen=True)
class _Gone:
    """What one router did between two looks; all of its life where that began between them."""

    seconds: float
    drawn_tokens: int
    parts: Mapping[str, int]
    token_gaps: Buckets  # by seconds
    services: Mapping[str, "_Sent"]

    @classmethod
    def of(cls, before: Activity, now: Activity) -> "_Gone":
        seconds = max(1e-9, (now.clock_nanos - before.clock_nanos) / NANOS)
        if before.instance != now.instance:
            before = Activity()
        earlier = {one.address: one for one in before.services}
        nothing = placement_pb2.ServiceActivity()
        return cls(
            seconds,
            now.drawn_tokens - before.drawn_tokens,
            {
                name: getattr(now.parts, name) - getattr(before.parts, name)
                for name, _ in PHASE_PARTS
            },
            since(_gaps(before), _gaps(now)),
            {one.address: _Sent.of(earlier.get(one.address, nothing), one) for one in now.services},
        )


@dataclass(frozen=True)
class _Sent:
    """What came of a router's frames to one service."""

    frames: int = 0
    pairs: int = 0
    queue_nanos: int = 0
    compute_nanos: int = 0
    straggler_layers: int = 0
    in_flight: int = 0
    wire_nanos: int = 0

    @classmethod
    def of(
        cls, before: placement_pb2.ServiceActivity, now: placement_pb2.ServiceActivity
    ) -> "_Sent":
        names = ("frames", "pairs", "queue_nanos", "compute_nanos", "straggler_layers")
        # A service that was forgotten and made known again is counted anew.
        gone = {name: max(0, getattr(now, name) - getattr(before, name)) for name in names}
        return cls(**gone, in_flight=now.frames_in_flight, wire_nanos=now.median_wire_nanos)

    def plus(self, other: "_Sent") -> "_Sent":
        summed = {name: mine + getattr(other, name) for name, mine in vars(self).items()}
        return _Sent(**summed | {"wire_nanos": max(self.wire_nanos, other.wire_nanos)})


def _services(
    gone: Sequence[_Gone], now: Look, known: Known, seconds: float
) -> Iterator[ServiceFigures]:
    sent = {one.address: _Sent() for one in now.placement.services}
    for router in gone:
        for address, more in router.services.items():
            sent[address] = sent.get(address, _Sent()).plus(more)
    num_layers = sum(one.straggler_layers for one in sent.values())
    for placed in now.placement.services:
        yield _service(placed, sent[placed.address], known, seconds, num_layers)


def _service(
    placed: router_pb2.PlacedService, sent: _Sent, known: Known, seconds: float, num_layers: int
) -> ServiceFigures:
    return ServiceFigures(
        name=known.name(placed.address),
        address=placed.address,
        state=state_of(placed),
        num_experts=sum(len(hosted.experts) for hosted in placed.layers),
        pairs_per_second=sent.pairs / seconds,
        busy_share=min(1.0, sent.compute_nanos / NANOS / seconds),
        queue_seconds=sent.queue_nanos / NANOS / sent.frames if sent.frames else None,
        frames_in_flight=sent.in_flight,
        wire_seconds=sent.wire_nanos / NANOS if sent.wire_nanos else None,
        straggler_share=sent.straggler_layers / num_layers if num_layers else None,
        memory_bytes=max(0, placed.expert_memory_bytes - placed.free_memory_bytes),
        memory_limit_bytes=placed.expert_memory_bytes,
    )


def _layers(activities: Sequence[Activity]) -> list[LayerFigures]:
    """Loads of all routers together; replicas as the first sees them."""
    first, *others = activities
    layers = []
    for index, load in enumerate(first.loads):
        alike = [load.pairs, *(one.loads[index].pairs for one in others if index < len(one.loads))]
        summed = [float(sum(each)) for each in zip(*alike, strict=False)]
        layers.append(LayerFigures(load.layer, summed, list(load.replicas)))
    return layers


def _move(operation: router_pb2.ChangePlacementResponse) -> MoveFigures:
    phase = router_pb2.OperationPhase.Name(operation.phase)
    return MoveFigures(
        operation.operation_id,
        phase.removeprefix("OPERATION_PHASE_").lower(),
        operation.num_done,
        operation.num_total,
        operation.loaded_bytes,
        operation.total_bytes,
    )


def _communication(parts: Iterable[Mapping[str, int]]) -> float | None:
    together = [*parts]
    total = sum(sum(one.values()) for one in together)
    named = sum(nanos for one in together for name, nanos in one.items() if name in COMMUNICATION)
    return named / total if total > 0 else None


def _times(buckets: Buckets) -> Times:
    return Times(quantile(buckets, 0.5), quantile(buckets, 0.99))


def _gaps(activity: Activity) -> Buckets:
    return {one.most_nanos / NANOS: float(one.count) for one in activity.token_gaps}


def _added(several: Iterable[Buckets]) -> Buckets:
    total: dict[float, float] = {}
    for buckets in several:
        for bound, count in buckets.items():
            total[bound] = total.get(bound, 0.0) + count
    return total
