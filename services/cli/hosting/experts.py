"""`moesaic experts`: shows the expert services that a router knows, adds some, and empties one that is to leave."""

import json
import sys
from collections.abc import Sequence

from rich.console import Console

from moesaic.v1 import router_pb2
from services.cli.command import run_command
from services.cli.hosting.actions import Action, run_action
from services.cli.hosting.router import ANSWER_SECONDS, change, placement_of, router_at
from services.cli.hosting.settings import AddSettings, DrainSettings, ListSettings
from services.cli.hosting.tables import as_object, services_table
from services.cli.report import Report
from services.runtime.settings import load

PROG = "moesaic experts"
FILE_WIDTH = 120

LIST_EXAMPLES = ("moesaic experts list", "moesaic experts list --router 10.0.0.7:50052 --json")
ADD_EXAMPLES = (
    "moesaic experts add 10.0.0.12:50053",
    "moesaic experts add 10.0.0.12:50053 10.0.0.13:50053",
    "moesaic experts add dns:///experts.moesaic:50053",
)
DRAIN_EXAMPLES = ("moesaic experts drain 10.0.0.12:50053", "moesaic experts drain --force 10.0.0.12:50053")


def experts(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    return run_action(PROG, "Show, add and empty the expert services of a running router.", ACTIONS, arguments)


def list_(arguments: Sequence[str]) -> int:
    """Run `moesaic experts list`; its exit code."""
    settings = load(ListSettings, arguments, f"{PROG} list", examples=LIST_EXAMPLES)
    return run_command(_list(settings), command="experts list")


def add(arguments: Sequence[str]) -> int:
    """Run `moesaic experts add`; its exit code."""
    settings = load(AddSettings, arguments, f"{PROG} add", examples=ADD_EXAMPLES)
    return run_command(_add(settings), command="experts add")


def drain(arguments: Sequence[str]) -> int:
    """Run `moesaic experts drain`; its exit code."""
    settings = load(DrainSettings, arguments, f"{PROG} drain", examples=DRAIN_EXAMPLES)
    return run_command(_drain(settings), command="experts drain")


ACTIONS = {
    "list": Action(list_, "the services, their state, and what they hold"),
    "add": Action(add, "make services known; they are given experts"),
    "drain": Action(drain, "move a service's experts away, so that it can be stopped"),
}


async def _list(settings: ListSettings) -> None:
    placement = await placement_of(settings.router)
    if settings.json_output:
        print(json.dumps(as_object(placement)["services"]))
        return
    Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH).print(services_table(placement))


async def _add(settings: AddSettings) -> None:
    request = router_pb2.AddExpertServicesRequest(addresses=settings.addresses)
    async with router_at(settings.router) as stub:
        known = await stub.AddExpertServices(request, timeout=ANSWER_SECONDS)
    Report().line(f"the router knows {len(known.addresses)} services now: {', '.join(known.addresses)}")


async def _drain(settings: DrainSettings) -> None:
    report = Report()
    drain = router_pb2.DrainService(address=settings.address)
    await change(router_pb2.ChangePlacementRequest(drain=drain), settings, report)
    report.line(f"{settings.address} hosts nothing any more and can be stopped")
