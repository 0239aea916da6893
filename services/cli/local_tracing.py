"""A tracing service beside a local cluster, for as long as the command runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.cli.cluster import LEAVE_SECONDS, log_folder, variables_of
from services.cli.members import Member, chosen_address, free_addresses
from services.cli.report import Report
from services.cli.supervisor import Supervisor

ANY_PORT = "127.0.0.1:0"


@dataclass(frozen=True)
class LocalTracing:
    """Where the cluster's processes export to, and where the traces are shown."""

    otlp_endpoint: str
    url: str


@asynccontextmanager
async def local_tracing(
    http: str | None, report: Report, *, verbose: bool, num_others: int
) -> AsyncIterator[LocalTracing | None]:
    """Run a tracing service until the block ends, with its page at `http`; without such an address none is run.

    `num_others` processes come before it in counting ports. Raises ServiceFailed, in an ExceptionGroup, when
    it cannot be started, and InvalidRequest when `http` is no address.
    """
    if http is None:
        yield None
        return
    otlp, free = free_addresses(2)
    http = chosen_address(http, free)
    member = Member.of("tracing", "tracing", otlp, f"--http={http}")
    with log_folder(report, verbose) as folder:
        supervisor = Supervisor(member, folder, variables_of(num_others), report.line, report.warning)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.run())
            try:
                await supervisor.ready.wait()
                report.line(f"tracing   {http:<21} pid {supervisor.pid or '-':<7} http://{http}")
                yield LocalTracing(f"http://{otlp}", f"http://{http}")
            finally:
                await supervisor.stop(LEAVE_SECONDS)
