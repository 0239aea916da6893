"""What is computed: by torch bit for bit the family's own module, by the kernel as closely as it
rounds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services import kernels
from services.expert.bank import Bank
from services.expert.compiled import experts_of
from services.expert.compute import Computer, FrameWork
from services.expert.grouped import GroupedExperts
from services.model.checkpoint import Checkpoint
from services.model.skeleton import experts_modules
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.wire.errors import BadState
from tests.checkpoints import SERVED_FAMILIES, save_tiny, tiny_model
from tests.expert.expert_client import assert_close

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]
needs_kernels = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")

Pairs = Sequence[tuple[int, int]]


@contextmanager
def filled_bank(
    model: Path, dtype: torch.dtype, order: Sequence[tuple[int, int]] | None = None
) -> Iterator[tuple[Bank, dict[tuple[int, int], int]]]:
    """A bank with experts of a checkpoint, read in `order`, by default all of them; and the slot of
    each.
    """
    checkpoint = Checkpoint.open(model)
    bank = Bank(checkpoint, dtype, CPU, 1 << 30)
    keys = order or [
        (layer, expert)
        for layer in checkpoint.moe_layers
        for expert in range(checkpoint.num_experts)
    ]
    slots = {key: slot for slot, key in enumerate(keys)}
    for (layer, expert), slot in slots.items():
        bank.fill(slot, layer, expert)
    yield bank, slots


def work(
    slots: dict[tuple[int, int], int], layer: int, rows: torch.Tensor, pairs: Pairs
) -> FrameWork:
    return FrameWork(
        rows,
        np.array([row for row, _ in pairs], np.int64),
        np.array([slots[layer, expert] for _, expert in pairs], np.int64),
    )


async def compute(
    bank: Bank, batch: Sequence[FrameWork], *, batch_invariant: bool = False, threads: int = 1
) -> Sequence[torch.Tensor]:
    computer = Computer(bank, threads=threads, batch_invariant=batch_invariant)
    try:
        return (await computer.compute(batch)).rows
    finally:
        computer.close()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", SERVED_FAMILIES)
async def test_every_family_s_experts_compute_what_they_do_in_the_whole_model(
    family: str, dtype: torch.dtype, tmp_path: Path, either_way: str
) -> None:
    whole = tiny_model(family, dtype)
    with filled_bank(save_tiny(family, tmp_path, dtype), dtype) as (bank, slots):
        for entry in experts_modules(whole):
            rows = torch.randn(9, 32).to(dtype)
            experts = torch.stack([torch.randperm(8)[:3] for _ in rows])
            pairs = [(row, int(expert)) for row, chosen in enumerate(experts) for expert in chosen]
            computed = await compute(bank, [work(slots, entry.layer, rows, pairs)])
            repeated = rows.repeat_interleave(3, 0)
            with torch.no_grad():
                expected = entry.module(
                    repeated, experts.view(-1, 1), torch.ones(27, 1, dtype=dtype)
                )
            assert_close(computed[0], expected)
            if either_way == "torch":
                assert torch.equal(computed[0], expected)


@needs_kernels
@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_every_served_family_has_a_compiled_kernel_on_a_cpu(family: str, tmp_path: Path) -> None:
    model = save_tiny(family, tmp_path)
    for dtype in DTYPES:
        with filled_bank(model, dtype, [(2, 0)]) as (bank, _):
            assert experts_of(bank) is not None


@needs_kernels
def test_there_is_no_kernel_for_other_types_other_activations_or_where_none_is_built(
    olmoe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled_bank(olmoe, torch.float16, [(0, 0)]) as (bank, _):
        assert experts_of(bank) is None
    other = save_tiny("olmoe", tmp_path, hidden_act="mish")
    with filled_bank(other, torch.float32, [(0, 0)]) as (bank, _):
        assert experts_of(bank) is None
    with filled_bank(olmoe, torch.float32, [(0, 0)]) as (bank, _):
        monkeypatch.setattr(kernels, "AVAILABLE", False)
        assert experts_of(bank) is None


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("mixtral", {"hidden_act": "gelu"}),
        ("granitemoe", {"hidden_act": "gelu_pytorch_tanh"}),
        ("olmoe", {"hidden_act": "relu2"}),
        ("gpt_oss", {"swiglu_limit": 0.5, "swiglu_alpha": 2.0}),
    ],
)
async def test_experts_of_other_kinds_compute_what_the_family_s_module_does(
    family: str, overrides: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    model = save_tiny(family, tmp_path, dtype, **overrides)
    whole = experts_modules(tiny_model(family, dtype, **overrides))[1]
    with filled_bank(model, dtype) as (bank, slots):
        assert experts_of(bank) is not None
        rows = torch.randn(9, 32).to(dtype)
        pairs = [(row, (row * 3) % 8) for row in range(9)]
        computed = await compute(bank, [work(slots, whole.layer, rows, pairs)])
        chosen = torch.tensor([[expert] for _, expert in pairs])
        with torch.no_grad():
            expected = whole.module(rows, chosen, torch.ones(9, 1, dtype=dtype))
        assert_close(computed[0], expected)


@needs_kernels
async def test_many_rows_of_an_expert_go_through_torch_unless_their_bits_must_not_depend_on_it(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    kernel = kernels.GatedExperts.__call__

    def record_call(
        experts: kernels.GatedExperts, rows: torch.Tensor, *arguments: Any
    ) -> torch.Tensor:
        calls.append(len(rows))
        return kernel(experts, rows, *arguments)

    monkeypatch.setattr(kernels.GatedExperts, "__call__", record_call)
    monkeypatch.setattr(kernels, "most_pairs_per_expert", lambda _: 3)
    with filled_bank(olmoe, torch.float32) as (bank, slots):
        for batch_invariant, threads, expected in (
            (False, 1, [1]),
            (False, 2, [1]),
            (True, 2, [1, 500]),
        ):
            calls.clear()
            results = []
            for num_rows in (1, 500):
                rows = torch.ones(num_rows, 32)
                batch = [work(slots, 1, rows, [(row, 4) for row in range(num_rows)])]
                results.append(
                    (await compute(bank, batch, batch_invariant=batch_invariant, threads=threads))[
                        0
                    ]
                )
            assert calls == expected
            assert_close(results[0].expand(500, -1), results[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", ["olmoe", "gpt_oss", "granitemoe"])
async def test_one_call_for_all_experts_computes_what_single_calls_do(
    family: str, dtype: torch.dtype, tmp_path: Path, torch_alone: None
) -> None:
    """The way that a CUDA device takes."""
    with filled_bank(save_tiny(family, tmp_path, dtype), dtype) as (bank, slots):
        rows = torch.randn(6, 32).to(dtype)
        pairs = [(row, expert) for row in range(6) for expert in (5, row % 4)]
        batch = [work(slots, 1, rows, pairs)]
        expected = await compute(bank, batch)
        grouped = GroupedExperts(bank, batch_invariant=False, in_one_call=True)
        (one,) = batch
        assert torch.equal(grouped(one.rows, one.pair_rows, one.slots), expected[0])


async def test_frames_of_a_batch_get_their_own_rows_back_in_their_order(
    tmp_path: Path, either_way: str
) -> None:
    with filled_bank(save_tiny("olmoe", tmp_path), torch.float32) as (bank, slots):
        frames = [
            (torch.randn(3, 32), [(2, 1), (0, 7)]),
            (torch.randn(1, 32), [(0, 7), (0, 0), (0, 1)]),
        ]
        batch = [work(slots, 2, rows, pairs) for rows, pairs in frames]
        together = await compute(bank, batch)
        for frame, rows in zip(batch, together, strict=True):
            torch.testing.assert_close(rows, (await compute(bank, [frame]))[0])


async def test_rows_may_stand_at_any_address(tmp_path: Path, either_way: str) -> None:
    with filled_bank(save_tiny("olmoe", tmp_path), torch.float32) as (bank, slots):
        rows = torch.randn(5, 32)
        pairs = [(row, row % 3) for row in range(5)]
        expected = await compute(bank, [work(slots, 0, rows, pairs)])
        for offset in (1, 2, 3, 5):
            received = bytearray(offset) + rows.numpy().tobytes()
            moved = torch.frombuffer(received, dtype=torch.float32, offset=offset).view(5, 32)
            assert torch.equal(
                (await compute(bank, [work(slots, 0, moved, pairs)]))[0], expected[0]
            )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", ["tessera", "olmoe", "gpt_oss", "odd"])
async def test_batch_invariant_bits_depend_on_the_row_and_the_expert_alone(
    family: str, dtype: torch.dtype, tmp_path: Path, either_way: str
) -> None:
    """Not on its mates, its place among them, their number, the other experts, nor the slot the
    expert is in.
    """
    if family == "odd":
        model = save_tiny(
            "olmoe", tmp_path, dtype, hidden_size=36, num_attention_heads=2, intermediate_size=19
        )
    else:
        model = EMBEDDED_MODEL if family == "tessera" else save_tiny(family, tmp_path, dtype)
    random = np.random.default_rng(1)
    some = [(2, 3), (1, 5), (1, 0), (2, 1), (1, 6)]
    with (
        filled_bank(model, dtype) as (bank, slots),
        filled_bank(model, dtype, some) as (other_bank, other_slots),
    ):
        width = Checkpoint.open(model).hidden_size
        row = torch.randn(width).to(dtype)
        alone = (await compute(bank, [work(slots, 1, row[None], [(0, 5)])], batch_invariant=True))[
            0
        ][0]
        for num_rows in (1, 2, 7, 16, 17, 40):
            for place in {0, num_rows // 2, num_rows - 1}:
                rows = torch.randn(num_rows, width).to(dtype)
                rows[place] = row
                pairs = [(mate, 5) for mate in range(num_rows)]
                pairs += [
                    (int(mate), int(random.choice([0, 6]))) for mate in random.permutation(num_rows)
                ]
                frames = [(rows, pairs), (torch.randn(3, width).to(dtype), [(2, 5), (0, 0)])]
                for held, where in ((bank, slots), (other_bank, other_slots)):
                    batch = [work(where, 1, *frame) for frame in reversed(frames)]
                    computed = (await compute(held, batch, batch_invariant=True))[1][place]
                    assert torch.equal(computed, alone)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
async def test_in_tiles_wide_experts_are_activated_in_strips(
    dtype: torch.dtype, tmp_path: Path, torch_alone: None
) -> None:
    """Wider than what torch splits between threads."""
    model = save_tiny(
        "olmoe", tmp_path, dtype, intermediate_size=3000, num_hidden_layers=1, num_experts=2
    )
    with filled_bank(model, dtype) as (bank, slots):
        rows = torch.randn(16, 32).to(dtype)
        pairs = [(row, 1) for row in range(16)]
        together = (
            await compute(bank, [work(slots, 0, rows, pairs)], batch_invariant=True, threads=3)
        )[0]
        for row in (0, 5, 10, 15):
            single = [work(slots, 0, rows[row : row + 1], [(0, 1)])]
            alone = await compute(bank, single, batch_invariant=True, threads=3)
            assert torch.equal(alone[0][0], together[row])


def test_a_bank_takes_no_more_than_its_memory_and_no_more_than_the_model(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path))
    size = checkpoint.expert_bytes(0)
    assert Bank(checkpoint, torch.float32, CPU, 3 * size + 1).num_slots == 3
    assert Bank(checkpoint, torch.bfloat16, CPU, 3 * size).num_slots == 6
    assert Bank(checkpoint, torch.float32, CPU, 1 << 40).num_slots == 24
    with pytest.raises(BadState, match="expert_memory is 9215 bytes; one expert takes 9216"):
        Bank(checkpoint, torch.float32, CPU, size - 1)


def test_memory_that_cannot_be_had_is_refused_at_start(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path))
    checkpoint.num_experts = 1 << 50
    with pytest.raises(BadState, match=r"the memory for \d+ experts cannot be had"):
        Bank(checkpoint, torch.float32, CPU, 1 << 62)


def test_every_slot_is_aligned(tmp_path: Path) -> None:
    model = save_tiny(
        "olmoe", tmp_path, hidden_size=36, num_attention_heads=2, intermediate_size=19
    )
    bank = Bank(Checkpoint.open(model), torch.bfloat16, CPU, 1 << 20)
    for parameter in bank.pool.parameters():
        assert {slot.data_ptr() % 64 for slot in parameter} == {0}
