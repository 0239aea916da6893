"""`moesaic rebalance`: moves experts so that the services share their work better."""

from collections.abc import Sequence

from moesaic.v1 import router_pb2
from services.cli.command import run_command
from services.cli.found import with_running_router
from services.cli.hosting.router import change
from services.cli.hosting.settings import STRATEGIES, RebalanceSettings
from services.cli.report import Report
from services.runtime.settings import load

EXAMPLES = (
    "moesaic rebalance",
    "moesaic rebalance --strategy eplb --router 10.0.0.7:50052",
    "moesaic rebalance --even",
)


def rebalance(arguments: Sequence[str]) -> int:
    """Run the command; its exit code, 0 too where there was nothing to gain."""
    settings = load(RebalanceSettings, arguments, "moesaic rebalance", examples=EXAMPLES)
    settings = with_running_router(settings)
    return run_command(change(request_for(settings), settings, Report()), command="rebalance")


def request_for(settings: RebalanceSettings) -> router_pb2.ChangePlacementRequest:
    """What the router is asked for."""
    if settings.even:
        return router_pb2.ChangePlacementRequest(even=router_pb2.EvenPlacement())
    planned = router_pb2.PlannedPlacement(strategy=STRATEGIES[settings.strategy])
    return router_pb2.ChangePlacementRequest(planned=planned)
