"""The opt-in capacity guard: a limit on the pairs that one expert takes in one layer and step."""

import math

import numpy as np

from services.router.arrays import Indices


def capacity_of(factor: float, num_tokens: int, top_k: int, num_experts: int) -> int:
    """C = ceil(factor * tokens * k / experts), the usual definition (GShard, Switch
    Transformer).
    """
    return math.ceil(factor * num_tokens * top_k / num_experts)


def find_overflow(experts: Indices, num_experts: int, capacity: int) -> Indices:
    """Positions in the flat pairs beyond their expert's capacity; earlier tokens keep
    their places.
    """
    order = np.argsort(experts, kind="stable")
    counts = np.bincount(experts, minlength=num_experts)
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(experts)) - np.repeat(starts, counts)
    return np.sort(order[rank >= capacity])
