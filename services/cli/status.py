"""`moesaic status`: which clusters run here, where they are reached, and how each service is."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field, PositiveFloat
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console
from rich.table import Table

from services.cli.life_of_processes import is_living, seconds_since
from services.cli.probe import ask
from services.cli.report import output
from services.cli.running import STARTING, RunningCluster, RunningService, running_clusters
from services.runtime.invocation import typed
from services.runtime.settings import load

NOTHING_RUNS_EXIT = 1
EXAMPLES = ("moesaic status", "moesaic status --json")
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


class StatusSettings(BaseSettings):
    """Show the clusters that `moesaic serve` runs on this machine.

    The newest is the one that other commands talk to. The exit code is 1 where none runs.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOESAIC_STATUS_", frozen=True, cli_shortcuts={"json-output": "json"}
    )

    json_output: bool = Field(False, description="print one line of JSON instead of tables")
    timeout: PositiveFloat = Field(2.0, le=3_600, description="seconds that a service may take")


@dataclass(frozen=True)
class Seen:
    """A service as it was found now."""

    service: RunningService
    state: str
    seconds: float | None


def status(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(StatusSettings, arguments, "moesaic status", examples=EXAMPLES)
    clusters = running_clusters()
    seen = [look_at(cluster, settings.timeout) for cluster in clusters]
    if settings.json_output:
        print(json.dumps([_object(*pair) for pair in zip(clusters, seen, strict=True)]))
    elif not clusters:
        print(typed("no cluster runs here; start one: moesaic serve"))
    else:
        _print(clusters, seen, output())
    return 0 if clusters else NOTHING_RUNS_EXIT


def look_at(cluster: RunningCluster, timeout_seconds: float) -> list[Seen]:
    """Ask each service how it is, all at the same time."""

    def look(service: RunningService) -> Seen:
        is_there = is_living(cluster.machine, service.pid, service.started)
        gone = "ended" if service.pid else STARTING
        state = _state(service.address, timeout_seconds) if is_there else gone
        return Seen(service, state, seconds_since(service.started) if is_there else None)

    with ThreadPoolExecutor(max_workers=max(1, len(cluster.services))) as threads:
        return list(threads.map(look, cluster.services))


def _state(address: str, timeout_seconds: float) -> str:
    try:
        return "serving" if ask(address, timeout_seconds) else "not ready"
    except TimeoutError:
        return "no answer"
    except ConnectionRefusedError:
        return STARTING
    except (OSError, ValueError, EOFError):
        return "unclear"


def _print(
    clusters: Sequence[RunningCluster], seen: Sequence[Sequence[Seen]], console: Console
) -> None:
    for number, (cluster, services) in enumerate(zip(clusters, seen, strict=True)):
        which = ", the one that commands talk to" if number == 0 and len(clusters) > 1 else ""
        since = seconds_since(cluster.started)
        console.print(
            f"cluster of pid {cluster.pid}: {cluster.state}, for {_age(since)}{which}",
            markup=False,
            soft_wrap=True,
        )
        console.print(_table(services))
        for what, where in _doors(cluster):
            console.print(f"{what:<10}{where}", markup=False, soft_wrap=True)
        if number + 1 < len(clusters):
            console.print()


def _table(services: Sequence[Seen]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("service", "address", "pid", "state", "for"):
        table.add_column(name, justify="right" if name in ("pid", "for") else "left")
    for one in services:
        table.add_row(
            one.service.name,
            one.service.address,
            str(one.service.pid or "-"),
            one.state,
            _age(one.seconds),
        )
    return table


def _doors(cluster: RunningCluster) -> list[tuple[str, str]]:
    doors = [("HTTP", f"http://{cluster.http}/v1")] if cluster.http else []
    return [*doors, ("traces", cluster.tracing)] if cluster.tracing else doors


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _object(cluster: RunningCluster, seen: Sequence[Seen]) -> dict[str, Any]:
    services = [{**asdict(one.service), "state": one.state, "seconds": one.seconds} for one in seen]
    return {**asdict(cluster), "seconds": seconds_since(cluster.started), "services": services}
