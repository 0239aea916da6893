"""Experts of the router's own checkpoint, computed where two services do not agree on them."""

import numpy as np
import torch

from services.model.checkpoint import Checkpoint
from services.model.expert_weights import empty_experts, fill_expert
from services.router.peers.question import Question


class OwnExperts:
    """Reads an expert each time anew, and computes it in `dtype` on the CPU: slowly, in whatever
    thread asks.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype

    @torch.inference_mode()
    def answer(self, question: Question) -> torch.Tensor:
        """What a service should answer, near enough. Raises UnusableModel where the files cannot be
        read any more.
        """
        rows = question.rows.to(self._dtype)
        pair_rows = torch.from_numpy(question.pair_rows.astype(np.int64))
        pairs = rows.new_empty(len(question.experts), rows.shape[1])
        for expert in np.unique(question.experts).tolist():
            mine = torch.from_numpy(np.flatnonzero(question.experts == expert))
            pairs[mine] = self._computed(question, expert, rows[pair_rows[mine]])
        if question.weights is None:
            return pairs.to(question.rows.dtype)
        weighted = pairs.float() * torch.from_numpy(question.weights.copy())[:, None]
        sums = torch.zeros(len(rows), rows.shape[1])
        sums.index_add_(0, pair_rows, weighted)
        return sums.to(question.rows.dtype)

    def _computed(self, question: Question, expert: int, rows: torch.Tensor) -> torch.Tensor:
        device = torch.device("cpu")
        module = empty_experts(self._checkpoint, question.layer, 1, self._dtype, device, "eager")
        weights = self._checkpoint.read_expert(question.layer, expert, self._dtype)
        fill_expert(module, 0, weights)
        slots = torch.zeros(len(rows), 1, dtype=torch.int64)
        return module(rows, slots, rows.new_ones(len(rows), 1))  # type: ignore[no-any-return]
