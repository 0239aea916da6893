"""The router's life: load, find the experts, warm up, serve, drain."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc
import torch

from moesaic.v1 import router_pb2, router_pb2_grpc
from services.model.block_table import BLOCK_TOKENS
from services.model.checkpoint import Checkpoint
from services.model.fingerprint import numerics_fingerprint
from services.model.kv_cache import KvCache, bytes_per_token
from services.router.dispatch import Dispatcher, Placement
from services.router.engine import Engine
from services.router.expert_peer import Expected
from services.router.fleet import Fleet, find_services
from services.router.scheduler import Scheduler
from services.router.sequence import TraceDetail
from services.router.service import RouterService, Running
from services.router.settings import RouterSettings
from services.router.trunk import Numerics, Trunk
from services.router.warm_up import warm_up
from services.runtime.server import Health, serving, until_told_to_stop
from services.wire.errors import BadState
from services.wire.frames import ELEMENT_TYPES

logger = logging.getLogger(__name__)

SERVICE_NAME = "moesaic.v1.RouterService"
# The gateway's stream never ends by itself; what matters is drained before the server stops.
STOP_SECONDS = 0.2


async def run(settings: RouterSettings, *, on_ready: Callable[[int], Awaitable[None]] | None = None) -> None:
    """Serve until told to stop. Raises ServingError when the router cannot start."""
    torch.set_grad_enabled(False)  # for this thread, for good: lanes would interleave a context manager
    torch.set_num_threads(settings.threads)
    checkpoint = Checkpoint.open(settings.model)
    running: Running | None = None
    health = Health([SERVICE_NAME])

    def register(server: grpc.aio.Server) -> None:
        router_pb2_grpc.add_RouterServiceServicer_to_server(RouterService(lambda: running), server)

    async with (
        serving(
            register,
            listen=settings.listen,
            service_names=[SERVICE_NAME],
            drain_seconds=STOP_SECONDS,
            health=health,
        ) as port,
        asyncio.TaskGroup() as loops,
    ):
        stopping = loops.create_task(until_told_to_stop())
        router = _Router(settings, checkpoint)
        starting = loops.create_task(router.start(loops))
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
        router.stop()


class _Router:
    """Puts the parts together; its loops belong to the task group that `start` is given."""

    def __init__(self, settings: RouterSettings, checkpoint: Checkpoint) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._numerics = Numerics(
            checkpoint.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype),
            torch.device(settings.device),
            settings.batch_invariant,
        )
        self._dispatcher = Dispatcher(
            num_experts=checkpoint.num_experts,
            hidden_size=checkpoint.hidden_size,
            dtype=self._numerics.dtype,
            capacity_factor=settings.capacity_factor,
        )
        self._loops: list[asyncio.Task[None]] = []

    async def start(self, loops: asyncio.TaskGroup) -> Running:
        """Load the trunk while the experts are found and given out; ready when both are, and warm."""
        fleet = await self._fleet()
        self._loops.append(loops.create_task(fleet.run(self._settings.experts_wait_seconds)))
        trunk = await asyncio.to_thread(self._trunk)
        engine, cache, max_context = self._engine(trunk, fleet)
        await fleet.complete()
        self._loops.append(loops.create_task(engine.run()))
        await warm_up(engine, self._checkpoint.vocab_size, self._settings.max_batch_tokens, max_context)
        return Running(engine, fleet, self._description(cache, max_context))

    def stop(self) -> None:
        """End the loops."""
        for loop in self._loops:
            loop.cancel()

    async def _fleet(self) -> Fleet:
        addresses = await find_services(self._settings.experts, self._settings.experts_wait_seconds)
        expected = Expected(
            self._checkpoint.digest,
            ELEMENT_TYPES[self._numerics.dtype],
            self._checkpoint.hidden_size,
            self._numerics.batch_invariant,
        )

        def place(placement: Placement) -> None:
            self._dispatcher.placement = placement

        return Fleet(
            self._checkpoint,
            addresses,
            expected,
            num_lanes=self._settings.lanes,
            frame_floor_seconds=self._settings.frame_floor_seconds,
            place=place,
        )

    def _trunk(self) -> Trunk:
        # Gradients are off per thread, and this is another one.
        with torch.no_grad():
            return Trunk(self._checkpoint, self._numerics, self._dispatcher.compute, _log_progress)

    def _engine(self, trunk: Trunk, fleet: Fleet) -> tuple[Engine, KvCache, int]:
        settings = self._settings
        per_token = bytes_per_token(trunk.kv_shapes, self._numerics.dtype)
        max_context = self._max_context(per_token)
        wanted = -(-max_context // BLOCK_TOKENS) * BLOCK_TOKENS * settings.max_sequences
        num_tokens = min(settings.kv_memory // per_token, wanted)
        cache = KvCache(trunk.kv_shapes, num_tokens, self._numerics.dtype, self._numerics.device)
        logger.info("keys and values take %d bytes a token; room for %d tokens", per_token, cache.num_tokens)
        scheduler = Scheduler(
            cache.pool,
            max_sequences=settings.max_sequences,
            max_context=max_context,
            max_batch_tokens=settings.max_batch_tokens,
            num_lanes=settings.lanes,
        )
        engine = Engine(
            trunk,
            cache,
            scheduler,
            num_lanes=settings.lanes,
            trace_detail=TraceDetail[settings.trace_detail.upper()],
            forget=fleet.cancel,
        )
        return engine, cache, max_context

    def _max_context(self, bytes_per_token: int) -> int:
        """The context asked for, or as much of the model's as the KV memory holds."""
        checkpoint, asked = self._checkpoint, self._settings.max_context
        if asked is not None and asked > checkpoint.max_context:
            note = checkpoint.context_note or "more than the model's positions"
            raise BadState(f"max_context is {asked}, the model's limit is {checkpoint.max_context}: {note}")
        if checkpoint.context_note is not None:
            logger.warning("%s", checkpoint.context_note)
        holds = self._settings.kv_memory // bytes_per_token // BLOCK_TOKENS * BLOCK_TOKENS
        if holds < (asked or BLOCK_TOKENS):
            raise BadState(
                f"kv_memory of {self._settings.kv_memory:,} bytes holds {holds} tokens at {bytes_per_token:,} bytes "
                f"each, below the context of {asked or BLOCK_TOKENS}; raise kv_memory or lower max_context"
            )
        return asked or min(checkpoint.max_context, holds)

    def _description(self, cache: KvCache, max_context: int) -> router_pb2.RouterServiceDescribeResponse:
        checkpoint = self._checkpoint
        return router_pb2.RouterServiceDescribeResponse(
            model=self._settings.model_name or checkpoint.name,
            model_type=checkpoint.model_type,
            model_digest=checkpoint.digest,
            vocab_size=checkpoint.vocab_size,
            max_context=max_context,
            default_max_new_tokens=self._settings.default_max_new_tokens,
            max_sequences=self._settings.max_sequences,
            kv_tokens=cache.num_tokens,
            num_moe_layers=len(checkpoint.moe_layers),
            num_experts=checkpoint.num_experts,
            num_experts_per_token=checkpoint.num_experts_per_token,
            numerics_fingerprint=numerics_fingerprint(self._numerics.device),
        )


async def _drain(engine: Engine, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await engine.drain()
    except TimeoutError:
        logger.warning("sequences were still in flight after %g s of draining", seconds)


def _log_progress(num_loaded: int, num_total: int) -> None:
    if num_loaded == num_total:
        logger.info("loaded %d tensors of the trunk", num_total)
