"""Simulated devices: a real expert service with real frames, whose results are zero and whose time
is a formula.

They stand in where a machine has too few cores to compute what many devices would.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from services import kernels
from services.expert.admission import Contract, Slots
from services.expert.bank import Bank
from services.expert.batcher import Batcher
from services.expert.compute import Computed, FrameWork
from services.expert.hosting import Hosting
from services.expert.loading import Library, LoadingProgress
from services.expert.plane import Plane
from services.expert.service import SERVICE_NAME, ExpertService
from services.expert.settings import ExpertSettings
from services.model.checkpoint import Checkpoint
from services.runtime.server import serving
from services.wire.expert_key import ExpertKey

EXPERT_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class DeviceTime:
    """What a simulated device takes for a batch: a + b·active_experts + c·rows, in nanoseconds.

    A row counts once for each expert that computes it.
    """

    base_nanos: int = 0
    expert_nanos: int = 0
    row_nanos: int = 0

    @property
    def parts(self) -> tuple[int, int, int]:
        """For a batch, for each active expert and for each row."""
        return self.base_nanos, self.expert_nanos, self.row_nanos

    def nanos(self, num_active: int, num_rows: int) -> int:
        """The time of one batch."""
        return self.base_nanos + self.expert_nanos * num_active + self.row_nanos * num_rows

    def __str__(self) -> str:
        micros = [
            f"{nanos / 1e3:g}" for nanos in (self.base_nanos, self.expert_nanos, self.row_nanos)
        ]
        return f"{micros[0]} + {micros[1]}·active experts + {micros[2]}·rows µs"


@dataclass(frozen=True)
class SimulatedExpert:
    """A simulated service: the checkpoint whose experts it claims to compute, and its device's
    time.

    It has all experts from the start; with `num_slots` it has none but memory for so many, and is
    given them.
    """

    model: Path
    time: DeviceTime = DeviceTime()
    num_slots: int | None = None
    listen: str = "127.0.0.1:0"


class SimulatedDevice:
    """Computes batches as the batcher asks for it: zeros, held until the formula's time has passed.

    Of a frame with weights as many as it has rows, of another as many as it has pairs.
    """

    def __init__(self, time: DeviceTime, hidden_size: int, dtype: torch.dtype) -> None:
        self._time = time
        self._zeros = torch.zeros(0, hidden_size, dtype=dtype)

    async def compute(self, batch: Sequence[FrameWork]) -> Computed:
        """Zeros for each pair of the batch, once its time has passed."""
        began = time.monotonic_ns()
        lengths = [len(work.slots if work.weights is None else work.rows) for work in batch]
        num_active = len(np.unique(np.concatenate([work.slots for work in batch])))
        held = self._time.nanos(num_active, sum(len(work.slots) for work in batch))
        results = self._results(sum(lengths))
        # Nothing is yielded for a device without time: a real one that is as quick computes inline
        # too.
        if (left := began + held - time.monotonic_ns()) > 0:
            await asyncio.sleep(left / 1e9)
        parts = zip(results.split(lengths), batch, strict=True)
        return Computed([part.to(work.rows.dtype) for part, work in parts], num_active)

    def _results(self, num_pairs: int) -> torch.Tensor:
        # Kept: fresh memory for each batch would be page faults, which a device's own buffer has
        # not.
        if len(self._zeros) < num_pairs:
            self._zeros = self._zeros.new_zeros(num_pairs, self._zeros.shape[1])
        return self._zeros[:num_pairs]


@asynccontextmanager
async def simulated_expert(expert: SimulatedExpert) -> AsyncIterator[int]:
    """Serve experts of the checkpoint on a simulated device; yields the port.

    Everything but the computer is what `services.expert.app` puts together: experts are really read
    and hashed, and frames that wait for the same layer are one batch. The thread of native streams
    is held for as long as the device takes, as by a kernel.
    """
    checkpoint = Checkpoint.open(expert.model)
    bank = Bank(
        checkpoint, checkpoint.dtype, torch.device("cpu"), _memory_bytes(expert, checkpoint)
    )
    settings = ExpertSettings(model=expert.model)
    contract = Contract.of(checkpoint, bank.dtype, settings.max_frame_bytes)
    hosting, slots = Hosting(bank.num_slots), Slots(contract)
    device = SimulatedDevice(expert.time, checkpoint.hidden_size, bank.dtype)
    batcher = Batcher(device.compute, max_waiting_pairs=settings.max_waiting_pairs)
    window_pairs = settings.max_waiting_pairs
    plane = Plane(
        contract,
        slots,
        batcher,
        experts=_no_width(bank, checkpoint.hidden_size),
        most_compiled=math.inf,
        window_pairs=window_pairs,
        max_waiting_pairs=settings.max_waiting_pairs,
        held_nanos=expert.time.parts,
    )
    library = Library(checkpoint, bank, hosting, slots, plane.when_settled)
    service = ExpertService(
        name="simulated",
        checkpoint=checkpoint,
        contract=contract,
        bank=bank,
        hosting=hosting,
        slots=slots,
        batcher=batcher,
        library=library,
        window_pairs=window_pairs,
        batch_invariant=False,
        plane=plane,
    )
    try:
        async with asyncio.TaskGroup() as loops:
            batching = loops.create_task(batcher.run())
            async with (
                serving(
                    service.register,
                    listen=expert.listen,
                    service_names=(SERVICE_NAME,),
                    drain_seconds=0,
                ) as port,
                plane.serving(expert.listen, 0),
            ):
                if expert.num_slots is None:
                    await library.load(_all_of(checkpoint), hosting.generation, _quietly)
                yield port
                plane.drain(0)
                service.drain()
            batching.cancel()
    finally:
        library.close()


@asynccontextmanager
async def simulated_experts(experts: Sequence[SimulatedExpert]) -> AsyncIterator[int]:
    """Serve several in one process; yields the port of the first.

    Where devices hold their replies most of the time, one loop for all takes half the CPU that
    processes of their own would, on a machine that has fewer cores than services.
    """
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(simulated_expert(expert)) for expert in experts]
        yield ports[0]


def _no_width(bank: Bank, hidden_size: int) -> kernels.GatedExperts | None:
    """Experts that a kernel computes in no time."""
    if not kernels.AVAILABLE:
        return None
    shell = torch.empty(bank.num_slots, 0, hidden_size, dtype=bank.dtype)
    return kernels.GatedExperts(shell, shell.new_empty(bank.num_slots, hidden_size, 0))


def _memory_bytes(expert: SimulatedExpert, checkpoint: Checkpoint) -> int:
    if expert.num_slots is None:
        return EXPERT_MEMORY_BYTES
    return expert.num_slots * checkpoint.expert_bytes(checkpoint.moe_layers[0])


def _all_of(checkpoint: Checkpoint) -> list[ExpertKey]:
    return [
        ExpertKey(layer, expert)
        for layer in checkpoint.moe_layers
        for expert in range(checkpoint.num_experts)
    ]


async def _quietly(_: LoadingProgress) -> None:
    pass
