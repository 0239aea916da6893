"""Between the messages of router.proto about planning and planning's own words."""

from collections.abc import Iterable

from moesaic.v1 import router_pb2
from services.router.balance.judgement import Judgement
from services.router.balance.outcomes import PlanOutcome
from services.router.hosting.messages import hosted_layers
from services.router.planning.balanced import Balanced
from services.router.planning.eplb import Eplb
from services.router.planning.strategy import Strategy
from services.router.planning.targets import Target
from services.wire.errors import InvalidRequest


def strategy_of(strategy: "router_pb2.PlanStrategy.ValueType") -> Strategy:
    """The strategy of that name. Raises InvalidRequest for one that there is not."""
    match strategy:
        case router_pb2.PLAN_STRATEGY_UNSPECIFIED | router_pb2.PLAN_STRATEGY_BALANCED:
            return Balanced()
        case router_pb2.PLAN_STRATEGY_EPLB:
            return Eplb()
        case _:
            raise InvalidRequest(
                f"strategy is {strategy}; it must be from 0 to {router_pb2.PLAN_STRATEGY_EPLB}"
            )


def plan_message(
    judgement: Judgement, model_digest: str, outcomes: Iterable[PlanOutcome]
) -> router_pb2.PlanPlacementResponse:
    """A plan and its explanation; `outcomes` are of earlier ones, the latest first."""
    plan = judgement.plan
    return router_pb2.PlanPlacementResponse(
        target=_target_message(plan.target, model_digest),
        moves=[
            router_pb2.PlannedMove(
                layer=move.layer,
                expert=move.expert,
                source=move.source or "",
                target=move.target,
                gain_nanos=move.gain_nanos,
                why=move.why,
            )
            for move in plan.moves
        ],
        num_unloads=len(plan.unloads),
        before_nanos=plan.before.tolist(),
        after_nanos=plan.after.tolist(),
        before_imbalance=judgement.before_imbalance.tolist(),
        after_imbalance=judgement.after_imbalance.tolist(),
        reason=plan.reason,
        num_steps=judgement.num_steps,
        outcomes=[_outcome_message(outcome) for outcome in outcomes],
    )


def _target_message(target: Target, model_digest: str) -> router_pb2.TargetPlacement:
    services = [
        router_pb2.TargetService(address=address, layers=hosted_layers(sorted(experts)))
        for address, experts in sorted(target.items())
    ]
    return router_pb2.TargetPlacement(model_digest=model_digest, services=services)


def _outcome_message(outcome: PlanOutcome) -> router_pb2.PlanOutcome:
    # In proportion to the time before: the load that came since may be another, and is no merit or
    # fault of the plan.
    achieved_gain = outcome.achieved_gain
    achieved_nanos = 0.0 if achieved_gain is None else (1 - achieved_gain) * outcome.before_nanos
    return router_pb2.PlanOutcome(
        operation_id=outcome.operation,
        before_nanos=outcome.before_nanos,
        predicted_nanos=outcome.predicted_nanos,
        achieved_nanos=achieved_nanos,
        num_moves=outcome.num_moves,
    )
