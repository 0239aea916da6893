"""A cluster of local processes: started together, watched, and stopped in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from services.cli.error_lines import ErrorLines
from services.cli.found import running_at
from services.cli.log_folder import log_folder
from services.cli.members import ClusterPlan, Member
from services.cli.nursery import nursery_for
from services.cli.report import Report
from services.cli.settings import ClientSettings
from services.cli.startup import Startup
from services.cli.supervisor import Supervisor
from services.runtime.process import ProcessSettings
from services.runtime.settings import load
from services.runtime.surroundings import refuse_surroundings

# Of a cluster that has one client, which has ended or given up its requests when it stops.
OWN_DRAIN_SECONDS = 1.0
# Beyond its own drain a process needs a moment to flush telemetry and leave.
LEAVE_SECONDS = 10.0
SHARED_VARIABLES = {"GRPC_VERBOSITY": "ERROR"}
STOP_ORDER = ("gateway", "router", "expert")


@dataclass(frozen=True)
class LocalCluster:
    """Where a cluster is reached: its gateway, and the first of its routers; empty where that is
    not known.
    """

    gateway: str
    # Over HTTP; empty where that is not served.
    http: str
    router: str = ""
    # The page of its tracing service.
    tracing: str = ""
    # What its services are called, by their addresses.
    names: Mapping[str, str] = field(default_factory=dict)


def own_plan(settings: ClientSettings) -> ClusterPlan:
    """The cluster that a command starts for itself alone."""
    return ClusterPlan.from_settings(settings, drain_seconds=OWN_DRAIN_SECONDS)


@asynccontextmanager
async def gateway_address(
    settings: ClientSettings, report: Report, telemetry: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """The gateway's address of `reached_cluster`."""
    async with reached_cluster(settings, report, telemetry) as cluster:
        yield cluster.gateway


@asynccontextmanager
async def reached_cluster(
    settings: ClientSettings, report: Report, telemetry: Mapping[str, str] | None = None
) -> AsyncIterator[LocalCluster]:
    """The cluster at the address that the settings name, or else a local one which runs until the
    block ends.

    Its processes have the variables of `telemetry` too. Raises what `local_cluster` raises.
    """
    if settings.address is not None:
        yield _at(settings.address)
        return
    plan = replace(own_plan(settings), telemetry=telemetry or {})
    async with local_cluster(plan, report, verbose=settings.verbose) as cluster:
        report.line("")
        yield cluster


def _at(address: str) -> LocalCluster:
    found = running_at(address)
    if found is None:
        return LocalCluster(address, http="")
    return LocalCluster(address, found.http, found.router, found.tracing, found.names)


@asynccontextmanager
async def local_cluster(
    plan: ClusterPlan,
    report: Report,
    *,
    verbose: bool,
    watch: Callable[[Sequence[Supervisor]], None] = lambda supervisors: None,
) -> AsyncIterator[LocalCluster]:
    """Start the plan's members and yield where they are once requests are served.

    `watch` is called before they start, and whenever one has another process than before.
    When the block ends, the gateway drains and stops first, then the routers, then the experts.
    Raises ServiceFailed, in an ExceptionGroup, when a member ends for good; the block is cancelled
    then. Raises BadState where none could be started.
    """
    refuse_surroundings()
    members = plan.members()
    with log_folder(report, verbose) as folder:
        log = folder / "nursery.log" if folder is not None else None
        shared = SHARED_VARIABLES | dict(plan.telemetry)
        async with (
            nursery_for(plan.model, shared, log) as nursery,
            asyncio.TaskGroup() as tasks,
        ):
            supervisors = [
                Supervisor(
                    member,
                    folder,
                    variables_of(index) | dict(plan.telemetry),
                    report.line,
                    report.warning,
                    nursery,
                    lambda: watch(supervisors),
                )
                for index, member in enumerate(members)
            ]
            watch(supervisors)
            for supervisor in supervisors:
                tasks.create_task(supervisor.run())
            errors = (
                tasks.create_task(ErrorLines(folder, report.line).run())
                if folder is not None
                else None
            )
            try:
                await Startup(supervisors, report, coverage=plan.coverage).wait()
                yield _reached(members)
            finally:
                if errors is not None:
                    errors.cancel()
                await _stop(supervisors, plan.drain_seconds + LEAVE_SECONDS)


def _reached(members: Sequence[Member]) -> LocalCluster:
    gateway = members[-1]
    router = next(one for one in members if one.service == "router")
    names = {one.address: one.name for one in members}
    return LocalCluster(gateway.address, gateway.http, router.address, names=names)


async def _stop(supervisors: Sequence[Supervisor], grace_seconds: float) -> None:
    for service in STOP_ORDER:
        tier = [one for one in supervisors if one.member.service == service]
        async with asyncio.TaskGroup() as stopping:
            for supervisor in tier:
                stopping.create_task(supervisor.stop(grace_seconds))


def variables_of(index: int) -> dict[str, str]:
    """What a command's process of this number has in its environment besides the command's own."""
    variables = dict(SHARED_VARIABLES)
    first = load(ProcessSettings, (), "moesaic").metrics_port
    if first is not None:  # processes of one machine cannot share a port: each gets the next one
        variables["MOESAIC_METRICS_PORT"] = str(first + index)
    return variables
