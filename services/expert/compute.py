"""Computes one batch of frames: their rows through the experts of the bank, on the event loop where
that is quick.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from services import kernels
from services.expert import compiled
from services.expert.bank import Bank
from services.expert.compute_times import ComputeTimes
from services.expert.grouped import GroupedExperts
from services.model.weighted_sums import Positions, weighted_sums
from services.wire.received import Weights

# A batch that takes longer is computed off the event loop, so that health is answered meanwhile.
MAX_INLINE_NANOS = 2_000_000


class FrameWork(NamedTuple):
    """The pairs of one frame that are to be computed."""

    rows: (
        torch.Tensor
    )  # [rows, hidden], in the host's memory, of the type that the results are to have
    pair_rows: Positions  # [pairs]
    slots: Positions  # [pairs], where each pair's expert is in the bank
    weights: Weights | None = None  # [pairs]; where given, each row's weighted sum is wanted


class Computed(NamedTuple):
    """The results of each frame, [pairs, hidden] in its order or [rows, hidden], and how many
    experts took part.
    """

    rows: Sequence[torch.Tensor]
    num_active: int


class Computer:
    """Runs the bank's experts, inline where that is quick, else in one worker thread.

    Few rows go through the compiled kernel where there is one for such experts, others through
    torch. Where a row must have the same bits in any company, all of them go one way.
    `compiled` is that kernel, and `most_compiled` how many pairs for each active expert it gets.
    """

    def __init__(self, bank: Bank, *, threads: int, batch_invariant: bool) -> None:
        self._is_on_cpu = bank.device.type == "cpu"
        self._dtype = bank.dtype
        self.compiled = compiled.experts_of(bank)
        self.most_compiled = (
            math.inf if batch_invariant else kernels.most_pairs_per_expert(bank.dtype)
        )
        self._grouped = GroupedExperts(bank, batch_invariant=batch_invariant)
        self._times = ComputeTimes()
        self._worker = ThreadPoolExecutor(1, "compute", _prepare_thread, (threads,))

    def close(self) -> None:
        """End the worker; nothing is computed afterwards."""
        self._worker.shutdown(wait=True)

    async def compute(self, batch: Sequence[FrameWork]) -> Computed:
        """Compute a batch whose experts are all in the bank and stay there meanwhile."""
        whole = batch[0] if len(batch) == 1 else _join(batch)
        num_active = len(set(whole.slots.tolist()))
        usual_nanos = self._times.nanos(len(whole.slots), num_active)
        if self._is_on_cpu and usual_nanos < MAX_INLINE_NANOS:
            results = self._compute_timed(batch, whole, num_active)
        else:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(
                self._worker, self._compute_timed, batch, whole, num_active
            )
        return Computed(results, num_active)

    def _compute_timed(
        self, batch: Sequence[FrameWork], whole: FrameWork, num_active: int
    ) -> list[torch.Tensor]:
        began = time.perf_counter_ns()
        of_pairs = self._results(whole, num_active)
        parts = (
            of_pairs.split([len(work.slots) for work in batch]) if len(batch) > 1 else (of_pairs,)
        )
        results = [_as_asked(work, part) for work, part in zip(batch, parts, strict=True)]
        self._times.add(len(whole.slots), num_active, time.perf_counter_ns() - began)
        return results

    def _results(self, whole: FrameWork, num_active: int) -> torch.Tensor:
        rows, pair_rows, slots, _ = whole
        if rows.dtype is not self._dtype:
            rows = rows.to(self._dtype)
        if self.compiled is not None and len(slots) <= self.most_compiled * num_active:
            return self.compiled(rows, pair_rows, slots)
        return self._grouped(rows, pair_rows, slots)


def _as_asked(work: FrameWork, of_pairs: torch.Tensor) -> torch.Tensor:
    if work.weights is not None:
        of_pairs = weighted_sums(of_pairs, work.pair_rows, len(work.rows), work.weights)
    # torch takes long even to find that there is nothing to convert.
    return of_pairs if of_pairs.dtype is work.rows.dtype else of_pairs.to(work.rows.dtype)


def _join(batch: Sequence[FrameWork]) -> FrameWork:
    offsets = np.cumsum([0, *(len(work.rows) for work in batch[:-1])])
    return FrameWork(
        torch.cat([work.rows for work in batch]),
        np.concatenate(
            [work.pair_rows + offset for work, offset in zip(batch, offsets, strict=True)]
        ),
        np.concatenate([work.slots for work in batch]),
    )


def _prepare_thread(threads: int) -> None:
    # Both are settings of a thread, not of the process; the weights want no gradients anyway.
    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
