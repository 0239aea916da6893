"""What the gate sends to each expert, in numbers that a planner reads."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExpertLoad:
    """The load of every expert in a mean step, [layers, experts] both, layers with experts alone in
    their order.

    `tokens` are the pairs (a token and one of its experts) of an expert in a mean step; `active` is
    the share of steps, 0 to 1, in which it had any.
    """

    tokens: Shares
    active: Shares

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.shape != self.active.shape:
            shapes = f"{self.tokens.shape} and {self.active.shape}"
            raise ValueError(f"tokens and active are {shapes}; both are to be [layers, experts]")

    @property
    def num_layers(self) -> int:
        return len(self.tokens)

    @property
    def num_experts(self) -> int:
        """Experts of one layer."""
        return int(self.tokens.shape[1])
