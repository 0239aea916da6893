"""`moesaic placement`: shows who hosts what, writes it to a file, and has it made what a file says."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from moesaic.v1 import router_pb2
from services.cli.command import run_command
from services.cli.hosting.actions import Action, run_action
from services.cli.hosting.document import PlacementDocument
from services.cli.hosting.router import change, placement_of
from services.cli.hosting.settings import ApplySettings, ExportSettings, ShowSettings
from services.cli.hosting.tables import as_object, replica_map, services_table, summary, warnings
from services.cli.report import Report
from services.runtime.settings import load, refuse
from services.wire.errors import InvalidRequest

PROG = "moesaic placement"
FILE_WIDTH = 120
STANDARD = Path("-")  # stdin or stdout

SHOW_EXAMPLES = ("moesaic placement show", "moesaic placement show --router 10.0.0.7:50052 --json")
EXPORT_EXAMPLES = ("moesaic placement export placement.json", "moesaic placement export --router 10.0.0.7:50052")
APPLY_EXAMPLES = (
    "moesaic placement apply placement.json",
    "moesaic placement apply --force placement.json",
    "moesaic placement apply --operation-id night-shift placement.json",
)


def placement(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    return run_action(PROG, "Show and change which expert service hosts which expert.", ACTIONS, arguments)


def show(arguments: Sequence[str]) -> int:
    """Run `moesaic placement show`; its exit code."""
    settings = load(ShowSettings, arguments, f"{PROG} show", examples=SHOW_EXAMPLES)
    return run_command(_show(settings), command="placement show")


def export(arguments: Sequence[str]) -> int:
    """Run `moesaic placement export`; its exit code."""
    settings = load(ExportSettings, arguments, f"{PROG} export", examples=EXPORT_EXAMPLES)
    return run_command(_export(settings), command="placement export")


def apply(arguments: Sequence[str]) -> int:
    """Run `moesaic placement apply`; its exit code."""
    settings = load(ApplySettings, arguments, f"{PROG} apply", examples=APPLY_EXAMPLES)
    try:
        document = PlacementDocument.read(_read(settings.file))
    except (OSError, UnicodeDecodeError, InvalidRequest) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        refuse(f"{PROG} apply", [f"{settings.file}: {reason}"])
    request = router_pb2.ChangePlacementRequest(target=document.target())
    return run_command(change(request, settings, Report()), command="placement apply")


ACTIONS = {
    "show": Action(show, "services, and on how many of them each expert is ready"),
    "export": Action(export, "write the placement in force to a file"),
    "apply": Action(apply, "have the services host what a file says"),
}


async def _show(settings: ShowSettings) -> None:
    placement = await placement_of(settings.router)
    if settings.json_output:
        print(json.dumps(as_object(placement)))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print(services_table(placement), "\n", replica_map(placement), sep="")
    for warning in warnings(placement):
        console.print(f"! {warning}", markup=False, soft_wrap=True)
    console.print(summary(placement), style="dim", markup=False, soft_wrap=True)


async def _export(settings: ExportSettings) -> None:
    text = PlacementDocument.of(await placement_of(settings.router)).text()
    if settings.file == STANDARD:
        sys.stdout.write(text)
        return
    try:
        settings.file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{settings.file} cannot be written: {error.strerror}") from error
    Report().line(f"wrote {settings.file}")


def _read(file: Path) -> str:
    return sys.stdin.read() if file == STANDARD else file.read_text(encoding="utf-8")
