"""The weights held: one pool of slots, allocated once, that experts of any layer are read into and
leave again.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from services.expert.single_expert import SingleExpert
from services.model.checkpoint import Checkpoint
from services.model.expert_weights import empty_experts
from services.model.hash_cache import HashCache
from services.model.refusals import UnusableModel
from services.runtime.page_advice import PageTaker, give_back, make_huge
from services.wire.errors import BadState

# Every slot begins at such a boundary, so that an expert's bits do not depend on the slot that it
# is in.
ALIGNMENT_BYTES = 64
# All slots together begin where a huge page may.
POOL_ALIGNMENT_BYTES = 2 << 20


class Bank:
    """The family's own `*Experts` module with a slot for each expert that the memory has room for.

    All layers share the pool, since their experts are of one size. Loading an expert takes one slot
    and nothing else, so that the weights held are below the limit at every moment. On a CPU a
    slot's pages are taken when it is filled, and given back when it is cleared.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        device: torch.device,
        memory_bytes: int,
        hashes: HashCache | None = None,
    ) -> None:
        """Raises BadState when not one expert fits, UnusableModel when layers have experts of
        different sizes.
        """
        layers = checkpoint.moe_layers
        if len({checkpoint.expert_bytes(layer, dtype) for layer in layers}) > 1:
            raise UnusableModel(f"the experts of {checkpoint.name} differ in size between layers")
        shell = empty_experts(checkpoint, layers[0], 1, dtype, torch.device("meta"))
        self.slot_bytes = sum(
            _padded_size(parameter[0]) * dtype.itemsize for parameter in shell.parameters()
        )
        self.memory_bytes = memory_bytes
        self.num_slots = min(memory_bytes // self.slot_bytes, len(layers) * checkpoint.num_experts)
        if self.num_slots < 1:
            raise BadState(
                f"expert_memory is {memory_bytes} bytes; one expert takes {self.slot_bytes}"
            )
        self.dtype = dtype
        self.device = device
        self.pool = _allocate(shell, self.num_slots, device)
        self._checkpoint = checkpoint
        self._hashes = hashes
        self._pages = PageTaker()
        self._parameters = dict(self.pool.named_parameters())
        self._singles: dict[int, SingleExpert] = {}

    def fill(self, slot: int, layer: int, expert: int) -> bytes:
        """Read an expert into a slot that nobody computes with; its content hash. Takes a while:
        call it in a thread.

        Raises UnusableModel when the checkpoint is no longer what it was when it was opened.
        """
        views = {name: parameter[slot] for name, parameter in self._parameters.items()}
        for view in views.values():
            if view.is_cpu:
                self._pages.take(view.data_ptr(), view.nbytes)
        return self._checkpoint.load_into(views, layer, expert, self._hashes)

    def clear(self, slot: int) -> None:
        """Give the memory of a slot that nobody computes with back to the system, until it is
        filled.
        """
        for parameter in self._parameters.values():
            if parameter.is_cpu:
                give_back(parameter[slot].data_ptr(), parameter[slot].nbytes)

    def settle(self, slot: int, is_wanted: Callable[[], bool]) -> bool:
        """Have a slot that stays filled, and may be computed with, in memory that is read at full
        speed, until it is not wanted any more; whether it was done. Takes a while: call it in a
        thread.
        """
        views = [parameter[slot] for parameter in self._parameters.values() if parameter.is_cpu]
        return all(make_huge(view.data_ptr(), view.nbytes, is_wanted) for view in views)

    def single(self, slot: int) -> SingleExpert:
        """The expert in a slot, to be computed on its own."""
        single = self._singles.get(slot)
        if single is None:
            single = self._singles[slot] = SingleExpert(self.pool, slot)
        return single


def _allocate(shell: nn.Module, num_slots: int, device: torch.device) -> nn.Module:
    try:
        for name, parameter in list(shell.named_parameters()):
            size = _padded_size(parameter[0])
            flat = _aligned(num_slots * size, parameter.dtype, device).view(num_slots, size)
            slots = flat[:, : parameter[0].numel()].unflatten(1, parameter.shape[1:])
            setattr(shell, name, nn.Parameter(slots, requires_grad=False))
    except RuntimeError as error:
        raise BadState(f"the memory for {num_slots} experts cannot be had: {error}") from error
    shell.num_experts = num_slots  # type: ignore[assignment]
    return shell


def _aligned(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    flat = torch.empty(size + POOL_ALIGNMENT_BYTES // dtype.itemsize, dtype=dtype, device=device)
    begin = -flat.data_ptr() % POOL_ALIGNMENT_BYTES // dtype.itemsize
    return flat[begin : begin + size]


def _padded_size(values: torch.Tensor) -> int:
    step = ALIGNMENT_BYTES // values.dtype.itemsize
    return math.ceil(values.numel() / step) * step
