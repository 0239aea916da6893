"""What is counted of balance: how unevenly the load falls on the services, and what plans were and
came to.
"""

from collections.abc import Iterable
from functools import partial

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.router.balance.balancer import Balancer

IMBALANCE = "moesaic.router.imbalance"
ACTIVE_EXPERTS = "moesaic.router.active_experts"
HOTTEST_EXPERT_REPLICAS = "moesaic.router.hottest_expert_replicas"
PLANS = "moesaic.router.plans"
PLAN_GAIN = "moesaic.router.plan.gain"

# Layers of which the imbalance is told, each by itself: time series are dear.
MAX_LAYERS = 128

meter = metrics.get_meter(__name__)


def observe_balancer(balancer: Balancer) -> None:
    """Observe the load as it was when it was last looked at, and the plans that came of it."""
    gauge = meter.create_observable_gauge
    gauge(
        IMBALANCE,
        [partial(_imbalance, balancer)],
        "1",
        "(max - mean) / mean over services of the pairs each computes in a mean step",
    )
    gauge(
        ACTIVE_EXPERTS,
        [partial(_active_experts, balancer)],
        "{expert}",
        "most experts that a service computes in a layer of a step",
    )
    gauge(
        HOTTEST_EXPERT_REPLICAS,
        [partial(_hottest_expert_replicas, balancer)],
        "{service}",
        "services that the busiest expert is on",
    )
    meter.create_observable_counter(
        PLANS, [partial(_plans, balancer)], "{plan}", "plans that the router made by itself"
    )
    gauge(
        PLAN_GAIN,
        [partial(_plan_gain, balancer)],
        "1",
        "share of the experts' time that the last plan was to save, and saved",
    )


def _imbalance(balancer: Balancer, _: CallbackOptions) -> Iterable[Observation]:
    if balancer.latest is not None:
        for layer, value in zip(
            balancer.layers[:MAX_LAYERS], balancer.latest.before_imbalance, strict=False
        ):
            yield Observation(float(value), {"layer": layer})


def _active_experts(balancer: Balancer, _: CallbackOptions) -> Iterable[Observation]:
    if balancer.latest is not None:
        yield Observation(float(balancer.latest.plan.before_active.max(axis=1, initial=0.0).mean()))


def _hottest_expert_replicas(balancer: Balancer, _: CallbackOptions) -> Iterable[Observation]:
    yield Observation(balancer.hottest_expert_replicas)


def _plans(balancer: Balancer, _: CallbackOptions) -> Iterable[Observation]:
    for outcome, count in balancer.num_plans.items():
        yield Observation(count, {"outcome": outcome})


def _plan_gain(balancer: Balancer, _: CallbackOptions) -> Iterable[Observation]:
    known = next(
        (outcome for outcome in balancer.outcomes if outcome.achieved_gain is not None), None
    )
    if known is not None and known.achieved_gain is not None:
        yield Observation(known.predicted_gain, {"kind": "predicted"})
        yield Observation(known.achieved_gain, {"kind": "achieved"})
