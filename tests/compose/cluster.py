"""The cluster of deploy/compose.yaml under a name and ports of its own, and what can be done to its
containers.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from bench.harness.failure import BenchFailed
from bench.harness.programs import output
from bench.hosting.admin import Admin
from services.cli.members import free_addresses
from services.runtime.channels import split_address
from tests.compose.engine import ROOT

PROJECT = "moesaic-test"
LOGS = ROOT / "build" / "compose-logs"
# Their containers' ports, as the image has them.
ROUTER_PORT, METRICS_PORT = 50052, 9464
COVERAGE = 2
# Of a machine that is busy; a stop alone may take the 45 s that the compose file gives it.
COMPOSE_SECONDS = 180.0
WHOLE_SECONDS = 120.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Container:
    """A running container: `started` is in seconds since 1970."""

    name: str
    address: str
    started: float


class ComposeCluster:
    """What compose runs under the project's name, from `up` until `down`."""

    def __init__(self, compose: Sequence[str], image: str) -> None:
        self._compose = (
            *compose,
            "--file",
            str(ROOT / "deploy" / "compose.yaml"),
            "--project-name",
            PROJECT,
        )
        self.port, self.http_port, self._router_port, self.tracing_port = (
            split_address(one)[1] for one in free_addresses(4)
        )
        self._variables = {
            **os.environ,
            "MOESAIC_IMAGE": image,
            "MOESAIC_PORT": str(self.port),
            "MOESAIC_HTTP_PORT": str(self.http_port),
            "MOESAIC_ROUTER_PORT": str(self._router_port),
            "MOESAIC_TRACING_PORT": str(self.tracing_port),
            "MOESAIC_BATCH_INVARIANT": "true",
            "MOESAIC_COVERAGE": str(COVERAGE),
        }

    async def up(self) -> None:
        """Bring everything up; returns when compose has started the last container."""
        await self._run("up", "--detach", "--no-build")

    async def scale(self, num_experts: int) -> None:
        """Have so many expert services run; returns when they do, and those that leave
        have ended.
        """
        await self._run(
            "up",
            "--detach",
            "--no-build",
            "--no-recreate",
            "--scale",
            f"expert={num_experts}",
            "expert",
        )

    async def down(self) -> None:
        """Remove all of it."""
        await self._run("down", "--volumes", "--remove-orphans", "--timeout", "5")

    async def containers(self, service: str) -> list[Container]:
        """The running containers of a service, by name."""
        described = await output("docker", "inspect", *await self._names(service))
        return [_container(about) for about in json.loads(described)]

    async def num_restarts(self, service: str) -> int:
        """How often docker has started the service's containers again."""
        counts = await output(
            "docker", "inspect", "--format", "{{.RestartCount}}", *await self._names(service)
        )
        return sum(map(int, counts.split()))

    async def until_whole(self, num_experts: int) -> None:
        """Return when the router has so many live services and every expert has its replicas.
        Raises BenchFailed.
        """
        (router,) = await self.containers("router")
        admin = Admin(f"127.0.0.1:{self._router_port}", f"{router.address}:{METRICS_PORT}")
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                while not await _is_whole(admin, num_experts):  # noqa: ASYNC110 -- another process is waited for
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise BenchFailed(
                f"{num_experts} services did not host everything within {WHOLE_SECONDS:g} s"
            ) from None
        finally:
            await admin.close()

    async def num_retries(self) -> int:
        """Frames that the router has sent again."""
        (router,) = await self.containers("router")
        admin = Admin(f"127.0.0.1:{self._router_port}", f"{router.address}:{METRICS_PORT}")
        try:
            return await admin.num_retries()
        finally:
            await admin.close()

    async def save_logs(self) -> Path:
        """Write what every container has said to a file of its own; the folder."""
        LOGS.mkdir(parents=True, exist_ok=True)
        for name in (await self._run("ps", "--all", "--format", "{{.Name}}")).split():
            said = await output("sh", "-c", 'docker logs --timestamps "$0" 2>&1', name)
            (LOGS / f"{name}.log").write_text(said, encoding="utf-8")
        return LOGS

    async def _names(self, service: str) -> list[str]:
        """The service's running containers."""
        return sorted((await self._run("ps", "--format", "{{.Name}}", service)).split())

    async def _run(self, *arguments: str) -> str:
        return await output(
            *self._compose, *arguments, seconds=COMPOSE_SECONDS, variables=self._variables
        )


async def kill_process(container: Container) -> None:
    """SIGKILL the service's process, which compose's init has as its child."""
    await output(
        "docker", "exec", container.name, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"
    )


async def kill(container: Container) -> None:
    """SIGKILL the container; to docker that is a stop by hand, after which nothing is started
    again.
    """
    await output("docker", "kill", container.name)


async def pause(container: Container, seconds: float) -> None:
    """Freeze every process of the container for so long."""
    await output("docker", "pause", container.name)
    try:
        await asyncio.sleep(seconds)
    finally:
        await output("docker", "unpause", container.name)


async def until_started_again(container: Container) -> None:
    """Return when the container has been started anew."""
    deadline = time.monotonic() + WHOLE_SECONDS
    while True:
        (about,) = json.loads(await output("docker", "inspect", container.name))
        if about["State"]["Running"] and _container(about).started > container.started:
            return
        if time.monotonic() > deadline:
            raise BenchFailed(f"{container.name} was not started again within {WHOLE_SECONDS:g} s")
        await asyncio.sleep(POLL_SECONDS)


async def _is_whole(admin: Admin, num_experts: int) -> bool:
    try:
        placement = await admin.placement()
    except grpc.aio.AioRpcError:
        return False
    num_live = sum(service.is_live for service in placement.services)
    return num_live == num_experts and placement.min_live_replicas >= min(COVERAGE, num_experts)


def _container(about: dict[str, Any]) -> Container:
    """One of those that `docker inspect` describes."""
    # In any of its networks this machine reaches it.
    network = min(about["NetworkSettings"]["Networks"].items())[1]
    # Python reads microseconds, docker writes nanoseconds.
    moment = datetime.fromisoformat(about["State"]["StartedAt"][:26].rstrip("Z") + "+00:00")
    return Container(about["Name"].lstrip("/"), network["IPAddress"], moment.timestamp())
