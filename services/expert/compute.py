"""Computes one batch: rows grouped by expert, each expert's rows through one matrix product, results in frame order."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from services.expert.bank import Bank
from services.expert.compute_times import ComputeTimes

Positions: TypeAlias = npt.NDArray[np.int64]

# A batch that takes longer is computed off the event loop, so that health is answered meanwhile.
MAX_INLINE_NANOS = 2_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """The pairs of one frame that are to be computed."""

    rows: torch.Tensor  # [rows, hidden], in the host's memory
    pair_rows: Positions  # [pairs]
    slots: Positions  # [pairs], where each pair's expert is in the bank


@dataclass(frozen=True, slots=True)
class Computed:
    """The pairs' rows of each frame, [pairs, hidden] in its order, and how many experts took part."""

    rows: list[torch.Tensor]
    num_active: int


@dataclass(frozen=True, slots=True)
class _Grouped:
    """The pairs of a batch sorted by expert; within an expert they keep their order."""

    order: Positions  # [pairs], batch order of each sorted pair
    rows: Positions  # [pairs], row of each sorted pair
    slots: Positions  # [pairs], ascending
    bounds: list[int]  # where each expert's pairs begin, and the end


class Computer:
    """Runs the bank's experts, inline where that is quick, else in one worker thread."""

    def __init__(self, bank: Bank, *, threads: int, batch_invariant: bool) -> None:
        self._bank = bank
        self._batch_invariant = batch_invariant
        # One matrix product for all experts pays where launching is what costs; on a CPU it would visit every slot.
        self._in_one_call = bank.device.type == "cuda" and not batch_invariant
        self._times = ComputeTimes()
        self._worker = ThreadPoolExecutor(1, "compute", _prepare_thread, (threads,))

    def close(self) -> None:
        """End the worker; nothing is computed afterwards."""
        self._worker.shutdown(wait=True)

    async def compute(self, batch: Sequence[Work]) -> Computed:
        """Compute a batch whose experts are all in the bank and stay there meanwhile."""
        grouped = _group(batch)
        num_active = len(grouped.bounds) - 1
        expected = self._times.expected_nanos(len(grouped.order), num_active)
        if self._bank.device.type == "cpu" and expected is not None and expected < MAX_INLINE_NANOS:
            results = self._timed(batch, grouped)
        else:
            results = await asyncio.get_running_loop().run_in_executor(self._worker, self._timed, batch, grouped)
        lengths = [len(work.slots) for work in batch]
        return Computed(list(results.split(lengths)), num_active)

    def _timed(self, batch: Sequence[Work], grouped: _Grouped) -> torch.Tensor:
        began = time.perf_counter_ns()
        results = self._results(batch, grouped)
        took = time.perf_counter_ns() - began
        self._times.observe(len(grouped.order), len(grouped.bounds) - 1, took)
        return results

    def _results(self, batch: Sequence[Work], grouped: _Grouped) -> torch.Tensor:
        device = self._bank.device
        rows = batch[0].rows if len(batch) == 1 else torch.cat([work.rows for work in batch])
        # Selecting also copies received rows, which stand at any address, to an aligned one.
        chosen = rows.index_select(0, torch.from_numpy(grouped.rows))
        if device.type == "cuda":
            chosen = chosen.pin_memory().to(device, non_blocking=True)
        computed = self._computed(chosen, grouped)
        results = torch.empty_like(computed)
        results.index_copy_(0, torch.from_numpy(grouped.order).to(device), computed)
        return results if device.type == "cpu" else _to_host(results)

    def _computed(self, chosen: torch.Tensor, grouped: _Grouped) -> torch.Tensor:
        if self._in_one_call:
            slots = torch.from_numpy(grouped.slots).to(chosen.device)[:, None]
            computed: torch.Tensor = self._bank.pool(chosen, slots, torch.ones_like(slots, dtype=chosen.dtype))
            return computed
        ends = zip(grouped.bounds[:-1], grouped.bounds[1:], strict=True)
        return torch.cat([self._of_one(int(grouped.slots[start]), chosen[start:end]) for start, end in ends])

    def _of_one(self, slot: int, rows: torch.Tensor) -> torch.Tensor:
        single = self._bank.single(slot)
        return single.in_tiles(rows) if self._batch_invariant else single(rows)


def _group(batch: Sequence[Work]) -> _Grouped:
    if len(batch) == 1:
        slots, rows = batch[0].slots, batch[0].pair_rows
    else:
        slots = np.concatenate([work.slots for work in batch])
        offsets = np.cumsum([0, *(len(work.rows) for work in batch[:-1])])
        rows = np.concatenate([work.pair_rows + offset for work, offset in zip(batch, offsets, strict=True)])
    order = np.argsort(slots, kind="stable")
    ascending = slots[order]
    changes = np.flatnonzero(ascending[1:] != ascending[:-1]) + 1
    return _Grouped(order, rows[order], ascending, [0, *changes.tolist(), len(order)])


def _to_host(results: torch.Tensor) -> torch.Tensor:
    host = torch.empty(results.shape, dtype=results.dtype, pin_memory=True)
    host.copy_(results, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    copied.synchronize()  # in the worker thread: the event loop goes on
    return host


def _prepare_thread(threads: int) -> None:
    # Both are settings of a thread, not of the process; the weights want no gradients anyway.
    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
