"""`moesaic placement`: shows who hosts what, writes it to a file, plans it, and has it made what a
file says.
"""

import json
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from moesaic.v1 import router_pb2
from services.cli.hosting.actions import Action, run_action
from services.cli.hosting.document import PlacementDocument
from services.cli.hosting.plan import explanation, plan_as_object
from services.cli.hosting.router import change, placement_of, plan_of
from services.cli.hosting.settings import (
    STRATEGIES,
    ApplySettings,
    ExportSettings,
    PlanSettings,
    ShowSettings,
)
from services.cli.hosting.tables import as_object, replica_map, services_table, summary, warnings
from services.cli.report import Report, output
from services.runtime.settings import refuse
from services.runtime.text_files import STANDARD, Unreadable, read_text
from services.wire.errors import InvalidRequest

PROG = "moesaic placement"


def placement(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    return run_action(
        PROG, "Show, plan and change which expert service hosts which expert.", ACTIONS, arguments
    )


async def show(settings: ShowSettings) -> None:
    """`moesaic placement show`."""
    placement = await placement_of(settings)
    if settings.json_output:
        print(json.dumps(as_object(placement)))
        return
    console = output()
    console.print(services_table(placement), "\n", replica_map(placement), sep="")
    for warning in warnings(placement):
        console.print(f"! {warning}", markup=False, soft_wrap=True)
    console.print(summary(placement), style="dim", markup=False, soft_wrap=True)


async def export(settings: ExportSettings) -> None:
    """`moesaic placement export`."""
    _write(settings.file, PlacementDocument.from_response(await placement_of(settings)))


def plan(settings: PlanSettings) -> Coroutine[Any, Any, None]:
    """`moesaic placement plan`; refused at once where there is a file that cannot be judged."""
    if settings.file is not None:
        target = _read(settings.file, "plan").target()
        return _plan(settings, router_pb2.PlanPlacementRequest(target=target))
    return _plan(settings, router_pb2.PlanPlacementRequest(strategy=STRATEGIES[settings.strategy]))


def apply(settings: ApplySettings) -> Coroutine[Any, Any, None]:
    """`moesaic placement apply`; refused at once where the file is none."""
    target = _read(settings.file, "apply").target()
    return change(router_pb2.ChangePlacementRequest(target=target), settings, Report())


ACTIONS: Mapping[str, Action[Any]] = {
    "show": Action(
        ShowSettings,
        show,
        "services, and on how many of them each expert is ready",
        ("moesaic placement show", "moesaic placement show --router 10.0.0.7:50052 --json"),
    ),
    "plan": Action(
        PlanSettings,
        plan,
        "say what would be moved for the load of late, and why; moves nothing",
        (
            "moesaic placement plan",
            "moesaic placement plan --strategy eplb --json",
            "moesaic placement plan --output planned.json && moesaic placement apply planned.json",
            "moesaic placement plan --file placement.json",
        ),
    ),
    "export": Action(
        ExportSettings,
        export,
        "write the placement in force to a file",
        (
            "moesaic placement export placement.json",
            "moesaic placement export --router 10.0.0.7:50052",
        ),
    ),
    "apply": Action(
        ApplySettings,
        apply,
        "have the services host what a file says",
        (
            "moesaic placement apply placement.json",
            "moesaic placement apply --force placement.json",
            "moesaic placement apply --operation-id night-shift placement.json",
        ),
    ),
}


async def _plan(settings: PlanSettings, request: router_pb2.PlanPlacementRequest) -> None:
    planned = await plan_of(settings, request)
    if settings.output != STANDARD:
        if settings.json_output:
            print(json.dumps(plan_as_object(planned)))
        else:
            console = output()
            for part in explanation(planned):
                console.print(part, markup=False, soft_wrap=isinstance(part, str))
    if settings.output is not None:
        _write(settings.output, PlacementDocument.planned(planned.target))


def _read(file: Path, action: str) -> PlacementDocument:
    try:
        return PlacementDocument.read(read_text(file))
    except Unreadable as error:
        refuse(f"{PROG} {action}", [str(error)])
    except InvalidRequest as error:
        refuse(f"{PROG} {action}", [f"{file}: {error}"])


def _write(file: Path, document: PlacementDocument) -> None:
    if file == STANDARD:
        sys.stdout.write(document.text())
        return
    try:
        file.write_text(document.text(), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be written: {error.strerror}") from error
    Report().line(f"wrote {file}")
