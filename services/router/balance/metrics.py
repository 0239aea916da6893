"""What is counted of balance: how unevenly the load falls on the services, and what plans were and came to."""

from collections.abc import Iterable

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

    def imbalance(_: CallbackOptions) -> Iterable[Observation]:
        if balancer.latest is not None:
            for layer, value in zip(balancer.layers[:MAX_LAYERS], balancer.latest.before_imbalance, strict=False):
                yield Observation(float(value), {"layer": layer})

    def active_experts(_: CallbackOptions) -> Iterable[Observation]:
        if balancer.latest is not None:
            yield Observation(float(balancer.latest.plan.before_active.max(axis=1, initial=0.0).mean()))

    def hottest_expert_replicas(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(balancer.hottest_expert_replicas)

    def plans(_: CallbackOptions) -> Iterable[Observation]:
        for outcome, count in balancer.num_plans.items():
            yield Observation(count, {"outcome": outcome})

    def plan_gain(_: CallbackOptions) -> Iterable[Observation]:
        known = next((outcome for outcome in balancer.outcomes if outcome.achieved_gain is not None), None)
        if known is not None and known.achieved_gain is not None:
            yield Observation(known.predicted_gain, {"kind": "predicted"})
            yield Observation(known.achieved_gain, {"kind": "achieved"})

    gauge = meter.create_observable_gauge
    gauge(IMBALANCE, [imbalance], "1", "(max - mean) / mean over services of the pairs each computes in a mean step")
    gauge(ACTIVE_EXPERTS, [active_experts], "{expert}", "most experts that a service computes in a layer of a step")
    gauge(HOTTEST_EXPERT_REPLICAS, [hottest_expert_replicas], "{service}", "services that the busiest expert is on")
    meter.create_observable_counter(PLANS, [plans], "{plan}", "plans that the router made by itself")
    gauge(PLAN_GAIN, [plan_gain], "1", "share of the experts' time that the last plan was to save, and saved")
