"""Experts by torch: rows grouped by expert, each expert's rows through its matrix products, results
in pair order.
"""

import numpy as np
import torch

from services.expert.bank import Bank
from services.model.weighted_sums import Positions


class GroupedExperts:
    """Any family's experts on any device; with `batch_invariant` in tiles, else `in_one_call` where
    that is asked for, or on a CUDA device if nothing is said.
    """

    def __init__(
        self, bank: Bank, *, batch_invariant: bool, in_one_call: bool | None = None
    ) -> None:
        self._bank = bank
        self._batch_invariant = batch_invariant
        # One matrix product for all experts pays where launching is what costs; on a CPU it would
        # visit every slot.
        in_one_call = bank.device.type == "cuda" if in_one_call is None else in_one_call
        # It would look for all weights in their places.
        self._in_one_call = in_one_call and not batch_invariant and bank.shifts is None

    def __call__(self, rows: torch.Tensor, pair_rows: Positions, slots: Positions) -> torch.Tensor:
        """The pairs' results, [pairs, hidden]: of `rows` [rows, hidden] the ones that `pair_rows`
        [pairs] names.

        Pair i goes through the expert in the bank's slot `slots[i]`. Rows and results are in the
        host's memory.
        """
        device = self._bank.device
        order = slots.argsort(kind="stable")
        # Selecting also copies received rows, which stand at any address, to an aligned one.
        chosen = rows.index_select(0, torch.from_numpy(pair_rows[order]))
        if device.type == "cuda":
            chosen = chosen.pin_memory().to(device, non_blocking=True)
        ascending = slots[order]
        computed = (
            self._all_at_once(chosen, ascending)
            if self._in_one_call
            else self._in_turn(chosen, ascending)
        )
        if ascending[0] != ascending[-1]:
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            computed = computed.index_select(0, torch.from_numpy(back).to(device))
        return computed if device.type == "cpu" else _to_host(computed)

    def _all_at_once(self, chosen: torch.Tensor, ascending: Positions) -> torch.Tensor:
        slots = torch.from_numpy(ascending).to(chosen.device)[:, None]
        computed: torch.Tensor = self._bank.pool(
            chosen, slots, torch.ones_like(slots, dtype=chosen.dtype)
        )
        return computed

    def _in_turn(self, chosen: torch.Tensor, ascending: Positions) -> torch.Tensor:
        changes = (ascending[1:] != ascending[:-1]).nonzero()[0] + 1
        if not len(changes):
            return self._of_one(int(ascending[0]), chosen)
        starts = [0, *changes.tolist()]
        ends = [*starts[1:], len(ascending)]
        groups = zip(ascending[starts].tolist(), starts, ends, strict=True)
        return torch.cat([self._of_one(slot, chosen[start:end]) for slot, start, end in groups])

    def _of_one(self, slot: int, rows: torch.Tensor) -> torch.Tensor:
        single = self._bank.single(slot)
        return single.in_tiles(rows) if self._batch_invariant else single(rows)


def _to_host(results: torch.Tensor) -> torch.Tensor:
    host = torch.empty(results.shape, dtype=results.dtype, pin_memory=True)
    host.copy_(results, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    copied.synchronize()  # in the worker thread: the event loop goes on
    return host
