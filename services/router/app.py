"""The router's life: start, serve, drain."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc
import torch

from moesaic.v1 import placement_pb2_grpc, router_pb2_grpc
from services import kernels
from services.model.checkpoint import Checkpoint
from services.router import placement_service, service
from services.router.assembly import Assembly
from services.router.engine.engine import Engine
from services.router.placement_service import PlacementService
from services.router.running import Running
from services.router.service import RouterService
from services.router.settings import RouterSettings
from services.router.start_phase import NOT_READY
from services.runtime.build_info import observe_build
from services.runtime.server import Health, serving, until_told_to_stop
from services.wire.errors import Unavailable

logger = logging.getLogger(__name__)

SERVICE_NAMES = (service.SERVICE_NAME, placement_service.SERVICE_NAME)
# The gateway's stream never ends by itself; what matters is drained before the server stops.
STOP_SECONDS = 0.2


async def run(
    settings: RouterSettings, *, on_ready: Callable[[int], Awaitable[None]] | None = None
) -> None:
    """Serve until told to stop. Raises ServingError when the router cannot start."""
    torch.set_num_threads(settings.threads)
    kernels.set_threads(settings.threads)
    observe_build(kernels=kernels.level())
    with (
        torch.inference_mode()
    ):  # around all steps: lanes would interleave what is entered for each
        await _serve(settings, on_ready)


async def _serve(
    settings: RouterSettings, on_ready: Callable[[int], Awaitable[None]] | None
) -> None:
    assembly = Assembly(settings, Checkpoint.open(settings.model))
    running: Running | None = None
    health = Health(SERVICE_NAMES)

    def ready() -> Running:
        if running is None:
            raise Unavailable(f"{NOT_READY}{assembly.phase.value}")
        return running

    def register(server: grpc.aio.Server) -> None:
        placement_pb2_grpc.add_PlacementServiceServicer_to_server(PlacementService(ready), server)
        router_pb2_grpc.add_RouterServiceServicer_to_server(RouterService(ready), server)

    async with (
        serving(
            register,
            listen=settings.listen,
            service_names=SERVICE_NAMES,
            drain_seconds=STOP_SECONDS,
            health=health,
            tls=settings.tls,
        ) as port,
        asyncio.TaskGroup() as loops,
    ):
        try:
            stopping = loops.create_task(until_told_to_stop())
            starting = loops.create_task(assembly.start(loops))
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                running = starting.result()
                await health.ready()
                if on_ready is not None:
                    await on_ready(port)
                await stopping
                await health.draining()
                await _drain(running.engine, settings.drain_seconds)
            starting.cancel()
        finally:
            assembly.stop()


async def _drain(engine: Engine, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await engine.drain()
    except TimeoutError:
        logger.warning("sequences were still in flight after %g s of draining", seconds)
        engine.abandon()
