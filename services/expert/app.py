"""An expert service from its settings to its end."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch
from opentelemetry.metrics import Meter

from services import kernels
from services.expert import metrics
from services.expert.admission import Contract, Slots
from services.expert.bank import Bank
from services.expert.batcher import Batcher
from services.expert.compute import Computer
from services.expert.hosting import Hosting
from services.expert.loading import LOADING_TIMES, Library, LoadingProgress, LoadingTimes
from services.expert.memory import default_expert_memory
from services.expert.plane import RECORD_SECONDS, Plane
from services.expert.service import SERVICE_NAME, ExpertService
from services.expert.settings import ExpertSettings
from services.expert.vacating import vacate_wanted
from services.model.checkpoint import Checkpoint
from services.model.expert_kind import who_computes
from services.model.hash_cache import HashCache
from services.runtime.build_info import observe_build
from services.runtime.process import OnReady
from services.runtime.progress import Due, Progress
from services.runtime.server import Health, serving, until_told_to_stop
from services.wire.errors import BadState
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)

# Between two lines of the log on how far preloading is.
PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class ExpertParts:
    """What an expert service is made of."""

    checkpoint: Checkpoint
    bank: Bank
    hosting: Hosting
    slots: Slots
    computer: Computer
    batcher: Batcher
    library: Library
    plane: Plane
    service: ExpertService

    def close(self) -> None:
        """End the threads."""
        self.library.close()
        self.computer.close()


async def run(settings: ExpertSettings, *, on_ready: OnReady | None = None) -> None:
    """Serve until told to stop; then experts may be moved elsewhere, and frames that were accepted
    are finished.

    `on_ready` is called with the port once the service listens and what it preloads is ready: it is
    healthy then. Raises ServingError, alone or in a group, when checkpoint, device, memory or
    address cannot be used.
    """
    async with running(settings) as (parts, port):
        if on_ready is not None:
            await on_ready(port)
        await until_told_to_stop()
        await _evacuate(parts.hosting, settings.evacuate_seconds)


@asynccontextmanager
async def running(
    settings: ExpertSettings,
    *,
    times: LoadingTimes = LOADING_TIMES,
    meter: Meter = metrics.meter,
    record_seconds: float = RECORD_SECONDS,
) -> AsyncIterator[tuple[ExpertParts, int]]:
    """Serve until the block ends, then drain; yields the parts and the port once all is ready."""
    if settings.cores is not None:
        os.sched_setaffinity(0, settings.cores)
    torch.set_num_threads(settings.threads)
    kernels.set_threads(settings.threads)
    observe_build(kernels=kernels.level())
    parts = await asyncio.to_thread(build, settings, times=times, meter=meter)
    try:
        async with asyncio.TaskGroup() as loops:
            working = [loops.create_task(parts.batcher.run())]
            if parts.bank.mapped is not None:
                vacating = vacate_wanted(parts.bank.mapped, parts.slots.take_all_away)
                working.append(loops.create_task(vacating))
            async with (
                parts.plane.serving(
                    settings.listen, settings.dispatch_port, record_seconds, settings.tls
                ),
                _serving(settings, parts) as port,
            ):
                yield parts, port
            for task in working:
                task.cancel()
    finally:
        parts.close()


def build(
    settings: ExpertSettings,
    *,
    times: LoadingTimes = LOADING_TIMES,
    meter: Meter = metrics.meter,
) -> ExpertParts:
    """Open the checkpoint and allocate the memory for experts; no expert is read."""
    device = _device(settings.device)
    checkpoint = Checkpoint.open(settings.model)
    dtype = checkpoint.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    bank = _bank(settings, checkpoint, dtype, device)
    contract = Contract.of(checkpoint, dtype, settings.max_frame_bytes)
    hosting, slots = Hosting(bank.num_slots), Slots(contract)
    computer = Computer(bank, threads=settings.threads, batch_invariant=settings.batch_invariant)
    batcher = Batcher(computer.compute, max_waiting_pairs=settings.max_waiting_pairs)
    # Any frame that the contract allows fits into the credit.
    window_pairs = max(settings.max_waiting_pairs, contract.most_pairs)
    plane = Plane(
        contract,
        slots,
        batcher,
        experts=computer.compiled,
        most_compiled=computer.most_compiled,
        window_pairs=window_pairs,
        max_waiting_pairs=settings.max_waiting_pairs,
    )
    library = Library(checkpoint, bank, hosting, slots, plane.when_settled, times)
    service = ExpertService(
        name=settings.model_name or checkpoint.name,
        checkpoint=checkpoint,
        contract=contract,
        bank=bank,
        hosting=hosting,
        slots=slots,
        batcher=batcher,
        library=library,
        plane=plane,
        window_pairs=window_pairs,
        batch_invariant=settings.batch_invariant,
        compiled_kind=computer.compiled.kind if computer.compiled else None,
    )
    metrics.observe(
        meter,
        waiting_pairs=lambda: batcher.waiting_pairs + plane.counts().waiting_pairs,
        hosted_experts=lambda: hosting.num_hosted,
        memory_used=lambda: hosting.num_hosted * bank.slot_bytes,
        memory_limit=bank.memory_bytes,
    )
    return ExpertParts(checkpoint, bank, hosting, slots, computer, batcher, library, plane, service)


def _bank(
    settings: ExpertSettings, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
) -> Bank:
    memory_bytes = settings.expert_memory or default_expert_memory(device)
    hashes = HashCache.at(settings.hash_cache)
    return Bank(checkpoint, dtype, device, memory_bytes, hashes, maps_files=settings.map_files)


@asynccontextmanager
async def _serving(settings: ExpertSettings, parts: ExpertParts) -> AsyncIterator[int]:
    health = Health((SERVICE_NAME,))
    async with serving(
        parts.service.register,
        listen=settings.listen,
        service_names=(SERVICE_NAME,),
        drain_seconds=settings.drain_seconds,
        health=health,
        native=False,  # frames in bulk have the plane; what is left to gRPC stays gRPC's own
        tls=settings.tls,
    ) as port:
        compiled = parts.computer.compiled
        computed = who_computes(compiled.kind if compiled else None)
        used = (parts.checkpoint.name, port, settings.device, kernels.level(), computed)
        logger.info("serving %s on port %d, on %s, kernels %s, experts %s", *used)
        if parts.plane.port:
            logger.info("serving native streams on port %d", parts.plane.port)
        try:
            await _preload(settings, parts)
            await health.ready()
            yield port
        finally:
            await health.draining()
            parts.service.drain()
            parts.plane.drain(settings.drain_seconds)


async def _preload(settings: ExpertSettings, parts: ExpertParts) -> None:
    checkpoint = parts.checkpoint
    share = settings.preloaded_of(checkpoint.num_experts)
    keys = [ExpertKey(layer, expert) for layer in checkpoint.moe_layers for expert in share]
    if not keys:
        return
    expert_bytes, due = parts.bank.slot_bytes, Due(PROGRESS_SECONDS)
    progress = Progress(len(keys) * expert_bytes)

    async def report(loading: LoadingProgress) -> None:
        progress.at(loading.num_loaded * expert_bytes)
        if due.is_due():
            how_many = (loading.num_loaded, loading.num_total)
            logger.info("loaded %d of %d experts, %s", *how_many, progress)

    logger.info("loading %d experts", len(keys))
    await parts.library.load(keys, parts.hosting.generation, report)


async def _evacuate(hosting: Hosting, seconds: float) -> None:
    """Serve on while routers that watch the hosting move its experts elsewhere, but no longer than
    this.
    """
    hosting.drain()
    try:
        async with asyncio.timeout(seconds):
            await hosting.wait_until_evacuated()
    except TimeoutError:
        logger.warning(
            "stopping with %d experts that were not moved elsewhere in %g s",
            hosting.num_hosted,
            seconds,
        )


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise BadState(
                f"device is {name}; this machine has {count} CUDA devices that torch can use"
            )
        return torch.device("cuda", device.index or 0)
    return device
