"""`moesaic rebalance`: moves experts so that the services share them better."""

from collections.abc import Sequence

from moesaic.v1 import router_pb2
from services.cli.command import run_command
from services.cli.hosting.router import change
from services.cli.hosting.settings import RebalanceSettings
from services.cli.report import Report
from services.runtime.settings import load, refuse

PROG = "moesaic rebalance"

EXAMPLES = ("moesaic rebalance --even", "moesaic rebalance --even --router 10.0.0.7:50052")


def rebalance(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(RebalanceSettings, arguments, PROG, examples=EXAMPLES)
    if not settings.even:
        refuse(PROG, ["say how: --even spreads every layer evenly over all services"])
    request = router_pb2.ChangePlacementRequest(even=router_pb2.EvenPlacement())
    return run_command(change(request, settings, Report()), command="rebalance")
