"""Experts of kinds that the other cases' models do not have, by the kernel and as torch computes
them: in one process, which has both.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from bench.harness.failure import BenchFailed
from bench.harness.rounds import interleaved
from bench.kernels.load import KERNELS, TORCH
from bench.kernels.operations import cpu_micros
from bench.rig.checkpoints import Shape, gpt_oss_experts
from services.expert.bank import Bank
from services.expert.compiled import experts_of
from services.expert.grouped import GroupedExperts
from services.kernels import GatedExperts
from services.kernels.level import VARIABLE
from services.model.checkpoint import Checkpoint

# Experts that together take more than the caches do: those of the model of 470 M parameters, and
# of gpt-oss's own size.
SHAPES = (Shape(1024, 1, 64, 4, 512), Shape(2880, 1, 6, 4, 2880))
MEMORY_BYTES = 1 << 30

KINDS_COMPARED = (
    "one expert of gpt-oss's kind at a time, on one thread: by torch, which computed them before "
    "there was a kernel, and by the kernel, in turn in one process. Another expert is used each "
    "time, so that weights come from memory. Times are CPU time."
)

Way = GroupedExperts | GatedExperts


def models() -> dict[str, Path]:
    """Checkpoints of gpt-oss's kind, in bfloat16, by what to call them."""
    return {
        f"gpt-oss's experts, {shape.hidden_size} x {shape.intermediate_size}": gpt_oss_experts(
            shape
        )
        for shape in SHAPES
    }


async def kind_samples(
    model: Path, rows: Sequence[int], num_rounds: int, after_round: Callable[[], None]
) -> dict[int, dict[str, list[float]]]:
    """Microseconds that one expert takes for so many rows, on one thread, by torch and by the
    kernel. Raises BenchFailed without kernels.
    """
    taken = {}
    with _one_thread():
        bank = _filled(model)
        kernel = experts_of(bank)
        if kernel is None:
            raise BenchFailed(f"there are no compiled kernels, or {VARIABLE} is off")
        grouped = GroupedExperts(bank, batch_invariant=False)
        ways: dict[str, Way] = {TORCH: grouped, KERNELS: kernel}
        for num_rows in rows:
            hidden = torch.randn(num_rows, kernel.hidden).to(bank.dtype)
            variants = {name: partial(_time, way, hidden, bank) for name, way in ways.items()}
            taken[num_rows] = await interleaved(variants, num_rounds, after_round=after_round)
    return taken


async def _time(way: Way, rows: torch.Tensor, bank: Bank) -> float:
    pair_rows, slots = np.arange(len(rows)), cycle(range(bank.num_slots))
    return cpu_micros(lambda: way(rows, pair_rows, np.full(len(rows), next(slots))))


def _filled(model: Path) -> Bank:
    checkpoint = Checkpoint.open(model)
    bank = Bank(checkpoint, checkpoint.dtype, torch.device("cpu"), MEMORY_BYTES)
    for expert in range(checkpoint.num_experts):
        bank.fill(expert, checkpoint.moe_layers[0], expert)
    return bank


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
