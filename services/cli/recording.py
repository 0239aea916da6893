"""Keeps the file by which other commands find a cluster, as its processes come and go."""

from collections.abc import Sequence

from services.cli.life_of_processes import started_at
from services.cli.ports import to_call
from services.cli.running import STARTING, Record, RunningCluster, RunningService
from services.cli.supervisor import Supervisor


class Recording:
    """What the file says; `tracing_url` is empty where there is no tracing service."""

    def __init__(self, record: Record, tracing_url: str) -> None:
        self._record = record
        self._tracing_url = tracing_url
        self._supervisors: Sequence[Supervisor] = ()
        self._state = STARTING

    def watch(self, supervisors: Sequence[Supervisor]) -> None:
        """Write down these processes, as they are now."""
        self._supervisors = supervisors
        self._write()

    def is_at(self, state: str) -> None:
        """Write down that the cluster serves, or stops."""
        self._state = state
        self._write()

    def _write(self) -> None:
        http = next((one.member.http for one in self._supervisors if one.member.http), "")
        self._record(
            RunningCluster(
                services=tuple(map(_service, self._supervisors)),
                state=self._state,
                http=to_call(http) if http else "",
                tracing=self._tracing_url,
            )
        )


def _service(supervisor: Supervisor) -> RunningService:
    member, pid = supervisor.member, supervisor.pid or 0
    started = started_at(pid) if pid else None
    return RunningService(member.name, member.service, to_call(member.address), pid, started or 0)
