"""`moesaic experts`: shows the expert services that a router knows, adds some, empties one that
is to leave, and forgets some.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from moesaic.v1 import placement_pb2, router_pb2
from services.cli.hosting.actions import Action, run_action
from services.cli.hosting.router import ANSWER_SECONDS, change, placement_of, router_at
from services.cli.hosting.settings import (
    AddSettings,
    DrainSettings,
    ListSettings,
    RemoveSettings,
)
from services.cli.hosting.tables import as_object, services_table, state_of
from services.cli.report import Report, output
from services.cli.unreachable import connecting_fails, why_unreachable
from services.runtime.addresses import DNS_SCHEME
from services.wire.errors import Unavailable


def experts(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    about = "Show, add, empty and forget the expert services of a running router."
    return run_action("moesaic experts", about, ACTIONS, arguments)


async def show(settings: ListSettings) -> None:
    """`moesaic experts list`."""
    placement = await placement_of(settings)
    if settings.json_output:
        print(json.dumps(as_object(placement)["services"]))
        return
    output().print(services_table(placement))


async def add(settings: AddSettings) -> None:
    """`moesaic experts add`. Raises Unavailable for a service that does not listen, since it would
    be lost for ever where the address is mistyped.
    """
    if not settings.unseen:
        await _refuse_unseen(settings.addresses)
    request = router_pb2.AddExpertServicesRequest(addresses=settings.addresses)
    async with router_at(settings) as stub:
        known = await stub.AddExpertServices(request, timeout=ANSWER_SECONDS)
    _say_known(known.addresses)
    for service in (await placement_of(settings)).services:
        if service.address in settings.addresses and state_of(service) == "draining":
            Report().warning(
                f"{service.address} was drained: it is given experts again once it is started anew"
            )


async def _refuse_unseen(addresses: Sequence[str]) -> None:
    for address in addresses:
        if address.startswith(DNS_SCHEME):
            continue  # whoever the name stands for then
        error = await asyncio.to_thread(connecting_fails, address)
        if error is not None:
            raise Unavailable(
                f"{why_unreachable(address, error)}; --unseen adds it all the same, for later"
            )


async def remove(settings: RemoveSettings) -> None:
    """`moesaic experts remove`."""
    request = placement_pb2.RemoveExpertServicesRequest(addresses=settings.addresses)
    async with router_at(settings) as stub:
        known = await stub.RemoveExpertServices(request, timeout=ANSWER_SECONDS)
    _say_known(known.addresses)


def _say_known(addresses: Sequence[str]) -> None:
    Report().line(f"the router knows {len(addresses)} services now: {', '.join(addresses)}")


async def drain(settings: DrainSettings) -> None:
    """`moesaic experts drain`."""
    report = Report()
    request = router_pb2.ChangePlacementRequest(
        drain=router_pb2.DrainService(address=settings.address)
    )
    await change(request, settings, report)
    report.line(f"{settings.address} hosts nothing any more and can be stopped")


ACTIONS: Mapping[str, Action[Any]] = {
    "list": Action(
        ListSettings,
        show,
        "the services, their state, and what they hold",
        ("moesaic experts list", "moesaic experts list --router 10.0.0.7:50052 --json"),
    ),
    "add": Action(
        AddSettings,
        add,
        "make services known; they are given experts",
        (
            "moesaic experts add 10.0.0.12:50053",
            "moesaic experts add 10.0.0.12:50053 10.0.0.13:50053",
            "moesaic experts add dns:///experts.moesaic:50053",
        ),
    ),
    "remove": Action(
        RemoveSettings,
        remove,
        "forget services that host nothing, as they were made known",
        (
            "moesaic experts remove 10.0.0.12:50053",
            "moesaic experts remove dns:///experts.moesaic:50053",
        ),
    ),
    "drain": Action(
        DrainSettings,
        drain,
        "move a service's experts away, so that it can be stopped",
        ("moesaic experts drain 10.0.0.12:50053", "moesaic experts drain --force 10.0.0.12:50053"),
    ),
}
