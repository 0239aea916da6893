"""What stands in a MoE block in the place of its experts, and of its shared expert."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import torch

from services.router.engine.greenlets import await_, current_state
from services.router.engine.step import Step

SHARED_EXPERT_NAMES = ("shared_expert", "shared_experts")
GATE_NAMES = ("gate", "router")


class ComputeExperts(Protocol):
    """Scatters a layer's rows to the services that host its experts and combines what
    comes back.
    """

    def __call__(
        self,
        step: Step,
        layer: int,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weights: torch.Tensor,
        meanwhile: Callable[[], None] | None,
    ) -> Awaitable[torch.Tensor]: ...


class SharedExpert(torch.nn.Module):
    """A shared expert that is computed while its block's remote experts are in flight.

    Some families call it after the experts: then it is computed early and handed out when asked
    for. Others call it first: then it hands out a tensor that is filled before the experts return,
    which is before anybody reads it. Which of the two a block does is learnt in the probing
    forward.
    """

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.comes_first: bool | None = None
        self._in_flight: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # lane -> input, output

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        step = current_state()
        if not isinstance(step, Step):
            self.comes_first = self.comes_first is not False
            return self.inner(hidden)  # type: ignore[no-any-return]
        if self.comes_first:
            self._in_flight[step.lane] = (hidden, torch.empty_like(hidden))
            return self._in_flight[step.lane][1]
        seen, output = self._in_flight.pop(step.lane)
        return (
            output.view(hidden.shape)
            if seen.data_ptr() == hidden.data_ptr()
            else self.inner(hidden)
        )

    def note_experts(self) -> None:
        """The probing forward reached the block's experts."""
        if self.comes_first is None:
            self.comes_first = False

    def compute(self, lane: int, hidden: torch.Tensor) -> None:
        """Do the work, now that the lane's frames are on their way."""
        if self.comes_first:
            deferred, output = self._in_flight.pop(lane)
            output.copy_(self.inner(deferred))
        else:
            self._in_flight[lane] = (hidden, self.inner(hidden))


class RemoteExperts(torch.nn.Module):
    """The routed experts of one layer, on services of their own; called as transformers' blocks
    call their experts.

    Below `run_awaiting` it awaits the services; elsewhere, in probing forwards, it returns what
    `stand_in` makes.
    """

    def __init__(self, layer: int, compute: ComputeExperts) -> None:
        super().__init__()
        self.layer = layer
        self._compute = compute
        self.shared: SharedExpert | None = None

    def forward(
        self, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """hidden [tokens, width], index and weights [tokens, k]; returns [tokens, width] in
        hidden's dtype.
        """
        step = current_state()
        shared = self.shared
        if not isinstance(step, Step):
            if shared is not None:
                shared.note_experts()
            return stand_in(hidden, top_k_index, top_k_weights)
        meanwhile = None if shared is None else lambda: shared.compute(step.lane, hidden)
        return await_(
            self._compute(step, self.layer, hidden, top_k_index, top_k_weights, meanwhile)
        )


def stand_in(
    hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Something as large as `hidden` that tells whether all three are the same as another time."""
    shares = top_k_weights * (top_k_index + 1)
    return hidden * shares.sum(-1, keepdim=True).to(hidden.dtype)


def overlap_shared_experts(model: torch.nn.Module) -> None:
    """Wrap the shared expert of every block that has remote experts."""
    for block, experts in _blocks(model):
        for name in SHARED_EXPERT_NAMES:
            inner = getattr(block, name, None)
            if isinstance(inner, torch.nn.Module):
                experts.shared = SharedExpert(inner)
                setattr(block, name, experts.shared)


def gates(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str]]:
    """Every gate, as its block and its name there."""
    return [
        (block, name)
        for block, _ in _blocks(model)
        for name in GATE_NAMES
        if isinstance(getattr(block, name, None), torch.nn.Module)
    ]


def _blocks(model: torch.nn.Module) -> list[tuple[torch.nn.Module, RemoteExperts]]:
    return [
        (block, child)
        for block in model.modules()
        for child in block.children()
        if isinstance(child, RemoteExperts)
    ]
