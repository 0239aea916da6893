"""A tracing service beside a local cluster, for as long as the command runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.cli.cluster import LEAVE_SECONDS, variables_of
from services.cli.log_folder import log_folder
from services.cli.members import Member, chosen_address, free_addresses
from services.cli.report import Report
from services.cli.supervisor import Supervisor
from services.runtime.otlp.destination import GRPC
from services.runtime.otlp.settings import load_telemetry

ANY_PORT = "127.0.0.1:0"


@dataclass(frozen=True)
class LocalTracing:
    """Where the cluster's processes send their traces, and where they are shown."""

    otlp_endpoint: str
    url: str

    def variables(self, *, every_trace: bool) -> dict[str, str]:
        """What has a process send its traces here, whatever the environment says of traces.

        Metrics go where the environment says. Without `every_trace` its sampler holds.
        """
        variables = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.otlp_endpoint,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": GRPC,
        }
        if load_telemetry("moesaic").is_disabled:
            variables |= {"OTEL_SDK_DISABLED": "false", "OTEL_METRICS_EXPORTER": "none"}
        return variables | ({"OTEL_TRACES_SAMPLER": "always_on"} if every_trace else {})


@asynccontextmanager
async def local_tracing(
    http: str | None,
    report: Report,
    *,
    verbose: bool,
    num_others: int,
    insecure: bool = False,
) -> AsyncIterator[LocalTracing | None]:
    """Run a tracing service until the block ends, with its page at `http`; without such an address
    none is run.

    `num_others` processes come before it in counting ports. `insecure` is as its service has it.
    Raises ServiceFailed, in an ExceptionGroup, when it cannot be started, and InvalidRequest when
    `http` is no address.
    """
    if http is None:
        yield None
        return
    otlp, free = free_addresses(2)
    http = chosen_address(http, free)
    member = Member.of(
        "tracing", "tracing", otlp, f"--http={http}", *(["--insecure"] if insecure else [])
    )
    with log_folder(report, verbose) as folder:
        supervisor = Supervisor(
            member, folder, variables_of(num_others), report.line, report.warning
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.run())
            try:
                await supervisor.ready.wait()
                if load_telemetry("moesaic").traces is not None:
                    report.line(
                        "traces go to the cluster's own tracing service, not where OTEL_* "
                        "variables say"
                    )
                report.line(f"tracing   {http:<21} pid {supervisor.pid or '-':<7} http://{http}")
                yield LocalTracing(f"http://{otlp}", f"http://{http}")
            finally:
                await supervisor.stop(LEAVE_SECONDS)
