"""A whole cluster in one process: the real services on ports of their own, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.expert import app as expert_app
from services.expert.settings import ExpertSettings
from services.gateway import app as gateway_app
from services.gateway.settings import GatewaySettings
from services.router import app as router_app
from services.router.settings import RouterSettings
from services.runtime.roles import Role
from tests.certificates import Certificates

LISTEN = "127.0.0.1:0"
START_SECONDS = 60.0

Run = Callable[..., Awaitable[None]]


@asynccontextmanager
async def running(run: Run, settings: Any) -> AsyncIterator[str]:
    """One service, as its process would run it; yields its address once it is ready, and cancels it
    at the end.
    """
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def on_ready(port: int) -> None:
        ready.set_result(port)

    async def life() -> None:
        await run(settings, on_ready=on_ready)

    task = asyncio.create_task(life())
    try:
        async with asyncio.timeout(START_SECONDS):
            await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield f"127.0.0.1:{ready.result()}"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def expert(model: Path, **settings: Any) -> Any:
    """An expert service on a free port."""
    fields: dict[str, Any] = {"listen": LISTEN, "model": model, "drain_seconds": 0}
    return running(expert_app.run, ExpertSettings(**fields | settings))


def router(model: Path, experts: Sequence[str], **settings: Any) -> Any:
    """A router on a free port."""
    fields: dict[str, Any] = {
        "listen": LISTEN,
        "model": model,
        "experts": list(experts),
        "drain_seconds": 0,
        "kv_memory": "64MiB",
    }
    return running(router_app.run, RouterSettings(**fields | settings))


def gateway(model: Path, routers: Sequence[str], **settings: Any) -> Any:
    """A gateway on a free port."""
    fields: dict[str, Any] = {
        "listen": LISTEN,
        "http_listen": "",
        "model": model,
        "routers": list(routers),
        "drain_seconds": 0,
    }
    return running(gateway_app.run, GatewaySettings(**fields | settings))


@dataclass(frozen=True)
class Cluster:
    """Addresses of a cluster that is up."""

    gateway: str
    router: str
    experts: Sequence[str]


@asynccontextmanager
async def experts(model: Path, count: int, **settings: Any) -> AsyncIterator[list[str]]:
    """Several expert services."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(expert(model, **settings)) for _ in range(count)]


@asynccontextmanager
async def cluster(
    model: Path,
    *,
    num_experts: int = 2,
    gateway_settings: dict[str, Any] | None = None,
    router_settings: dict[str, Any] | None = None,
    certificates: Certificates | None = None,
    **numerics: Any,
) -> AsyncIterator[Cluster]:
    """Gateway, router and expert services; `numerics` (dtype, batch_invariant) go to router and
    experts alike.
    """

    def settings_of(role: Role, settings: dict[str, Any] | None = None) -> dict[str, Any]:
        tls = {} if certificates is None else certificates.settings_of(role)
        return tls | (settings or {})

    async with (
        experts(model, num_experts, **numerics, **settings_of(Role.EXPERT)) as addresses,
        router(
            model, addresses, **numerics, **settings_of(Role.ROUTER, router_settings)
        ) as router_address,
        gateway(
            model, [router_address], **settings_of(Role.GATEWAY, gateway_settings)
        ) as gateway_address,
    ):
        yield Cluster(gateway_address, router_address, addresses)
