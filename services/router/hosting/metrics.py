"""What is counted of hosting: how well the experts are covered, which services do not answer, what
was moved.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.router.hosting.fleet import Fleet
from services.router.peers.trust import KNOWN_FAILURES

MIN_LIVE_REPLICAS = "moesaic.router.min_live_replicas"
READY_EXPERTS = "moesaic.router.ready_experts"
UNCOVERED_EXPERTS = "moesaic.router.uncovered_experts"
SUSPECT = "moesaic.router.suspect"
REFUSED_EXPERTS = "moesaic.router.refused_experts"
QUARANTINED = "moesaic.router.quarantined"
WRONG_ANSWERS = "moesaic.router.wrong_answers"
LOADED_EXPERTS = "moesaic.router.loaded_experts"
UNLOADED_EXPERTS = "moesaic.router.unloaded_experts"
OPERATIONS = "moesaic.router.operations"

meter = metrics.get_meter(__name__)


def observe_fleet(fleet: Fleet) -> None:
    """Observe how well the experts are covered by the services that can be used, and what is done
    about it.
    """

    counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
    gauge(
        MIN_LIVE_REPLICAS,
        [partial(_min_live_replicas, fleet)],
        "{service}",
        "live services that the least replicated expert is on",
    )
    gauge(
        UNCOVERED_EXPERTS,
        [partial(_uncovered, fleet)],
        "{expert}",
        "experts that are on fewer live services than asked for",
    )
    gauge(READY_EXPERTS, [partial(_ready_experts, fleet)], "{expert}", "experts ready, by service")
    gauge(
        REFUSED_EXPERTS,
        [partial(_refused_experts, fleet)],
        "{expert}",
        "experts ready and not used, since they are not the checkpoint's, by service",
    )
    _observe_answers(fleet)
    transfers = fleet.transfers
    counter(
        LOADED_EXPERTS,
        [partial(_by_service, fleet, transfers.num_loaded)],
        "{expert}",
        "experts loaded for this router",
    )
    counter(
        UNLOADED_EXPERTS,
        [partial(_by_service, fleet, transfers.num_unloaded)],
        "{expert}",
        "experts let go for this router",
    )
    counter(
        OPERATIONS,
        [partial(_ended, fleet)],
        "{operation}",
        "changes of the placement",
    )


def _observe_answers(fleet: Fleet) -> None:
    counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
    gauge(SUSPECT, [partial(_suspect, fleet)], "1", "1 for a service that does not answer, else 0")
    gauge(
        QUARANTINED,
        [partial(_quarantined, fleet)],
        "1",
        "1 for a service whose answers were wrong, and that is given nothing but trials, else 0",
    )
    counter(
        WRONG_ANSWERS,
        [partial(_wrong_answers, fleet)],
        "{answer}",
        "answers that were not what was asked for, by service and reason",
    )


def _min_live_replicas(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    yield Observation(fleet.laid.min_live_replicas)


def _uncovered(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    yield Observation(fleet.laid.num_below(fleet.wanted.coverage))


def _ready_experts(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    for address, num_ready in fleet.laid.ready_by_service.items():
        yield Observation(num_ready, {"service": address})


def _refused_experts(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    for peer in fleet.peers:
        yield Observation(fleet.num_refused(peer), {"service": peer.address})


def _suspect(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    for peer in fleet.peers:
        is_silent = peer.is_suspect and not peer.trust.is_quarantined
        yield Observation(int(is_silent), {"service": peer.address})


def _quarantined(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    for peer in fleet.peers:
        yield Observation(int(peer.trust.is_quarantined), {"service": peer.address})


def _wrong_answers(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    for peer in fleet.peers:
        for reason in {*KNOWN_FAILURES, *peer.trust.num_failures.copy()}:
            count = peer.trust.num_failures[reason]
            yield Observation(count, {"service": peer.address, "reason": reason})


def _by_service(fleet: Fleet, counts: Counter[str], _: CallbackOptions) -> Iterable[Observation]:
    """Those that are known are there before their first; those that left keep their counts."""
    for service in {*counts.copy(), *(peer.address for peer in fleet.peers)}:
        yield Observation(counts[service], {"service": service})


def _ended(fleet: Fleet, _: CallbackOptions) -> Iterable[Observation]:
    for outcome in ("done", "failed"):
        yield Observation(fleet.operations.num_ended[outcome], {"outcome": outcome})
