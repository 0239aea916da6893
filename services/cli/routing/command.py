"""`moesaic routing`: writes down which experts the gates choose for the traffic that a router
serves.
"""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from services.cli.hosting.actions import Action, run_action
from services.cli.output_files import complaint_of
from services.cli.report import Report
from services.cli.routing.record import recording
from services.cli.routing.settings import RecordSettings
from services.runtime.settings import refuse

PROG = "moesaic routing"


def routing(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    return run_action(
        PROG, "Write down which experts the gates choose for live traffic.", ACTIONS, arguments
    )


def record(settings: RecordSettings) -> Coroutine[Any, Any, None]:
    """`moesaic routing record`; refused at once where the file must not or cannot be written."""
    file = settings.file
    if file.exists() and not settings.overwrite:
        refuse(f"{PROG} record", [f"{file} is there already; --overwrite replaces it"])
    # Found out now, not when an hour's steps are to be written.
    if complaint := complaint_of(file):
        refuse(f"{PROG} record", [complaint])
    return recording(settings, Report())


ACTIONS: Mapping[str, Action[Any]] = {
    "record": Action(
        RecordSettings,
        record,
        "write the experts chosen in the next steps to a file",
        (
            "moesaic routing record traffic.npz",
            "moesaic routing record --steps 20000 --topic code --router 10.0.0.7:50052 code.npz",
            "moesaic routing record --overwrite --timeout 60 traffic.npz",
        ),
    ),
}
