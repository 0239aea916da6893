"""`moesaic stop`: has a cluster of this machine finish its requests and end, and waits for that."""

import os
import signal
import sys
import time
from collections.abc import Sequence

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.cli.report import Report
from services.cli.running import RunningCluster, running_clusters
from services.runtime.invocation import typed
from services.runtime.settings import load

FAILED_EXIT = 1
LOOK_SECONDS = 0.05
EXAMPLES = ("moesaic stop", "moesaic stop --all", "moesaic stop --pid 4711 --timeout 5")


class StopSettings(BaseSettings):
    """Stop the cluster that `moesaic serve` runs: the newest, where there are several.

    Requests in flight may finish first. Given once more while a cluster drains, it ends that at
    once. The exit code is 1 where no cluster runs or one has not ended in time.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOESAIC_STOP_", frozen=True, cli_shortcuts={"every": "all"}
    )

    pid: PositiveInt | None = Field(
        None, description="stop the cluster of this process, as `moesaic status` has it"
    )
    every: bool = Field(False, description="stop all clusters of this machine")
    timeout: PositiveFloat = Field(
        60.0, le=86_400, description="seconds to wait for the end, which comes later otherwise"
    )


def stop(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(StopSettings, arguments, "moesaic stop", examples=EXAMPLES)
    clusters = running_clusters()
    meant = _meant(clusters, settings)
    report = Report()
    if not meant:
        of_whom = f" of pid {settings.pid}" if settings.pid is not None else ""
        report.line(f"moesaic stop: no cluster{of_whom} runs here")
        return FAILED_EXIT
    for cluster in meant:
        _tell(cluster)
    late = _late(meant, settings.timeout)
    for cluster in meant:
        if cluster in late:
            again = typed(f"moesaic stop --pid {cluster.pid}")
            report.line(f"the cluster of pid {cluster.pid} still drains; to end it now: {again}")
        else:
            report.line(f"stopped the cluster of pid {cluster.pid}")
    others = [str(one.pid) for one in clusters if one not in meant]
    if others:
        report.line(f"still running: the clusters of pid {', '.join(others)}")
    return FAILED_EXIT if late else 0


def _meant(clusters: Sequence[RunningCluster], settings: StopSettings) -> list[RunningCluster]:
    if settings.pid is not None:
        return [cluster for cluster in clusters if cluster.pid == settings.pid]
    return list(clusters if settings.every else clusters[:1])


def _tell(cluster: RunningCluster) -> None:
    """SIGTERM to the very process that the file speaks of."""
    try:
        if not sys.platform.startswith("linux"):
            os.kill(cluster.pid, signal.SIGTERM)
            return
        held = os.pidfd_open(cluster.pid)  # from here on its number is nobody else's
        try:
            if cluster.is_living:
                signal.pidfd_send_signal(held, signal.SIGTERM)
        finally:
            os.close(held)
    except ProcessLookupError:
        pass  # it has ended by itself


def _late(clusters: Sequence[RunningCluster], seconds: float) -> list[RunningCluster]:
    """Those that are still there after so long."""
    until = time.monotonic() + seconds
    while (left := [one for one in clusters if one.is_living]) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return left
