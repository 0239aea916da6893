"""The weights held: one pool of slots, allocated once, that experts of any layer are read into and
leave again.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from services.expert.mapped_slots import PAGE_BYTES, MappedSlots
from services.expert.single_expert import SingleExpert
from services.model.checkpoint import Checkpoint
from services.model.expert_weights import empty_experts
from services.model.hash_cache import HashCache
from services.model.refusals import UnusableModel
from services.runtime import placed_pages
from services.runtime.page_advice import PageTaker, give_back, make_huge
from services.wire.errors import BadState

# Every slot begins at such a boundary, so that an expert's bits do not depend on the slot that it
# is in.
ALIGNMENT_BYTES = 64
# All slots together begin where a huge page may.
POOL_ALIGNMENT_BYTES = 2 << 20
# Of the smallest parameter whose pages may be the file's own.
LEAST_MAPPED_BYTES = 1 << 20


class Bank:
    """The family's own `*Experts` module with a slot for each expert that the memory has room for.

    All layers share the pool, since their experts are of one size. Loading an expert takes one slot
    and nothing else, so that the weights held are below the limit at every moment. On a CPU a
    slot's pages are taken when it is filled, and given back when it is cleared. With `maps_files`
    they are the file's own where that can be: see MappedSlots.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        device: torch.device,
        memory_bytes: int,
        hashes: HashCache | None = None,
        *,
        maps_files: bool = False,
        least_mapped_bytes: int = LEAST_MAPPED_BYTES,
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
        self._checkpoint = checkpoint
        self._hashes = hashes
        self._pages = PageTaker()
        self._singles: dict[int, SingleExpert] = {}
        is_mapped = maps_files and self._can_be_mapped(shell, least_mapped_bytes)
        self.pool = _allocate(shell, self.num_slots, device, is_mapped=is_mapped)
        # The first product's before the second's.
        self._parameters = dict(sorted(self.pool.named_parameters(), key=_is_second))
        self.mapped = MappedSlots(self._parameters) if is_mapped else None

    def fill(self, slot: int, layer: int, expert: int) -> bytes:
        """Read an expert into a slot that nobody computes with; its content hash. Takes a while:
        call it in a thread.

        Raises UnusableModel when the checkpoint is no longer what it was when it was opened.
        """
        self._singles.pop(slot, None)
        if self.mapped is not None:
            self.mapped.clear(slot)
            placed = self._checkpoint.placed(layer, expert, self.dtype)
            if placed is not None and self.mapped.map(slot, placed):
                return placed.content_hash(self._hashes)
        views = self.weights(slot)
        for view in views.values():
            if view.is_cpu:
                self._pages.take(view.data_ptr(), view.nbytes)
        return self._checkpoint.load_into(views, layer, expert, self._hashes)

    def clear(self, slot: int) -> None:
        """Give the memory of a slot that nobody computes with back to the system, until it is
        filled.
        """
        if self.mapped is not None:
            self.mapped.clear(slot)
            return
        for parameter in self._parameters.values():
            if parameter.is_cpu:
                give_back(parameter[slot].data_ptr(), parameter[slot].nbytes)

    @property
    def shifts(self) -> npt.NDArray[np.int64] | None:
        """By how many bytes a slot's weights stand behind its place in the pool, [slots, 2] for the
        first product and the second; None where all stand in their places.
        """
        return None if self.mapped is None else self.mapped.shifts

    def weights(self, slot: int) -> dict[str, torch.Tensor]:
        """The parameters of the expert in a slot, where they stand."""
        views = {name: parameter.detach()[slot] for name, parameter in self._parameters.items()}
        if self.mapped is None:
            return views
        shifts = dict(zip(views, self.mapped.shifts[slot].tolist(), strict=True))
        return {name: _shifted(view, shifts[name]) for name, view in views.items()}

    def settle(self, slot: int, is_wanted: Callable[[], bool]) -> bool:
        """Have a slot that stays filled, and may be computed with, in memory that is read at full
        speed, until it is not wanted any more; whether it was done. Takes a while: call it in a
        thread. A file's pages are no such memory: they are small ones.
        """
        if self.mapped is not None:
            try:
                self.mapped.leave_file(slot)
            except (UnusableModel, MemoryError, OSError):
                return True  # it stays as it is; who lets writers in sees what is wrong with a file
        views = [view for view in self.weights(slot).values() if view.is_cpu]
        return all(make_huge(view.data_ptr(), view.nbytes, is_wanted) for view in views)

    def single(self, slot: int) -> SingleExpert:
        """The expert in a slot, to be computed on its own."""
        single = self._singles.get(slot)
        if single is None:
            weights = self.weights(slot)
            if any(weight.data_ptr() % ALIGNMENT_BYTES for weight in weights.values()):
                # What torch computes may depend on where it is; copies are not for keeping.
                return SingleExpert(self.pool, {name: weights[name].clone() for name in weights})
            single = self._singles[slot] = SingleExpert(self.pool, weights)
        return single

    def _can_be_mapped(self, shell: nn.Module, least_bytes: int) -> bool:
        """Whether experts consist of their two products' weights, which are large and stand in the
        files as they are computed with.
        """
        sizes = [parameter[0].nbytes for parameter in shell.parameters()]
        is_there = placed_pages.AVAILABLE and self.device.type == "cpu"
        if not is_there or len(sizes) != 2 or min(sizes) < least_bytes:
            return False
        layer, experts = self._checkpoint.moe_layers[0], range(self._checkpoint.num_experts)
        # One of them may stand in two files.
        return any(self._checkpoint.placed(layer, expert, self.dtype) for expert in experts)


def _allocate(
    shell: nn.Module, num_slots: int, device: torch.device, *, is_mapped: bool
) -> nn.Module:
    try:
        for name, parameter in list(shell.named_parameters()):
            size = _padded_size(parameter[0])
            if is_mapped:
                size = _room_for_pages(size, parameter.dtype)
                flat = _reserved(num_slots * size, parameter.dtype).view(num_slots, size)
            else:
                flat = _aligned(num_slots * size, parameter.dtype, device).view(num_slots, size)
            slots = flat[:, : parameter[0].numel()].unflatten(1, parameter.shape[1:])
            setattr(shell, name, nn.Parameter(slots, requires_grad=False))
    except (RuntimeError, OSError, OverflowError) as error:
        raise BadState(f"the memory for {num_slots} experts cannot be had: {error}") from error
    shell.num_experts = num_slots  # type: ignore[assignment]
    return shell


def _room_for_pages(size: int, dtype: torch.dtype) -> int:
    """Of a slot that begins where a huge page may, with room for a page more: only addresses."""
    num_bytes = size * dtype.itemsize + PAGE_BYTES
    return -(-num_bytes // POOL_ALIGNMENT_BYTES) * POOL_ALIGNMENT_BYTES // dtype.itemsize


def _reserved(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Memory whose pages can be replaced by others, since no other user of the heap gets them."""
    memory = placed_pages.reserve(size * dtype.itemsize + POOL_ALIGNMENT_BYTES)
    flat = torch.frombuffer(memory, dtype=torch.uint8)
    begin = -flat.data_ptr() % POOL_ALIGNMENT_BYTES
    return flat[begin : begin + size * dtype.itemsize].view(dtype)


def _aligned(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    flat = torch.empty(size + POOL_ALIGNMENT_BYTES // dtype.itemsize, dtype=dtype, device=device)
    begin = -flat.data_ptr() % POOL_ALIGNMENT_BYTES // dtype.itemsize
    return flat[begin : begin + size]


def _is_second(named: tuple[str, nn.Parameter]) -> bool:
    return named[0] == "down_proj"


def _shifted(view: torch.Tensor, num_bytes: int) -> torch.Tensor:
    offset = view.storage_offset() + num_bytes // view.itemsize
    return view.as_strided(view.shape, view.stride(), offset)


def _padded_size(values: torch.Tensor) -> int:
    step = ALIGNMENT_BYTES // values.dtype.itemsize
    return math.ceil(values.numel() / step) * step
