"""All experts of a layer in one call, against torch one pair at a time."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from services import kernels
from tests.kernels.numbers import DTYPES, assert_close, random, unaligned

NUM_SLOTS = 5
# hidden and intermediate: the shipped model's, and what fills no register
SIZES = [(192, 96), (40, 24), (37, 11)]


def weights(
    hidden: int, intermediate: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """gate_up and down, with gaps between slots as the pool has them."""
    gate_up = (
        random(NUM_SLOTS, 2 * intermediate * hidden + 32, dtype=torch.float32, seed=1)
        * hidden**-0.5
    )
    down = (
        random(NUM_SLOTS, intermediate * hidden + 32, dtype=torch.float32, seed=2)
        * intermediate**-0.5
    )
    return (
        gate_up.to(dtype)[:, :-32].unflatten(1, (2 * intermediate, hidden)),
        down.to(dtype)[:, :-32].unflatten(1, (hidden, intermediate)),
    )


def one_expert(row: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """As transformers' grouped_mm path computes it, which rounds after every operation."""
    gate, up = F.linear(row[None], gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)[0]


def random_pairs(num_rows: int, num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(num_pairs)
    return generator.integers(0, num_rows, num_pairs), generator.integers(0, NUM_SLOTS, num_pairs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("hidden", "intermediate"), SIZES)
@pytest.mark.parametrize("num_pairs", [1, 2, 7, 64])
def test_each_pair_is_its_expert_s_result_in_the_pairs_order(
    product_level: str, dtype: torch.dtype, hidden: int, intermediate: int, num_pairs: int
) -> None:
    rows = random(9, hidden, dtype=dtype)
    gate_up, down = weights(hidden, intermediate, dtype)
    pair_rows, slots = random_pairs(9, num_pairs)
    expected = [
        one_expert(rows[row], gate_up[slot], down[slot])
        for row, slot in zip(pair_rows, slots, strict=True)
    ]
    got = kernels.GatedExperts(gate_up, down)(rows, pair_rows, slots)
    assert_close(got, torch.stack(expected).double(), units=8 if dtype is torch.float32 else 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_pair_has_the_same_bits_alone_and_in_any_company(
    product_level: str, dtype: torch.dtype
) -> None:
    rows = random(9, 40, dtype=dtype)
    experts = kernels.GatedExperts(*weights(40, 24, dtype))
    pair_rows, slots = random_pairs(9, 64)
    together = experts(rows, pair_rows, slots)
    for pair in range(64):
        alone = experts(
            unaligned(rows[pair_rows[pair]][None]), np.zeros(1, np.int64), slots[pair : pair + 1]
        )
        assert torch.equal(alone[0], together[pair])


def test_no_pairs_give_no_rows(product_level: str) -> None:
    experts = kernels.GatedExperts(*weights(40, 24, torch.float32))
    none = np.zeros(0, np.int64)
    assert experts(torch.ones(3, 40), none, none).shape == (0, 40)


def test_gates_far_from_zero_are_closed_or_open(level: str) -> None:
    gates = torch.tensor([[-1000.0, -50.0, 0.0, 50.0, 1000.0]])
    # Five gates that are the row itself, five ups that are 1, as the row's last number is.
    gate_up = torch.zeros(1, 10, 6)
    gate_up[0, :5, :5], gate_up[0, 5:, 5] = torch.eye(5), 1
    down = torch.cat([torch.eye(5), torch.zeros(1, 5)])[None]
    index = np.zeros(1, np.int64)
    got = kernels.GatedExperts(gate_up, down)(torch.cat([gates, torch.ones(1, 1)], 1), index, index)
    assert torch.allclose(got[:, :5], F.silu(gates), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    ("pair_rows", "slots"),
    [([3], [0]), ([-1], [0]), ([0], [NUM_SLOTS]), ([0], [-1]), ([0, 0, 7], [0, 1, 2])],
)
def test_rows_and_slots_that_are_not_there_are_refused(
    level: str, pair_rows: list[int], slots: list[int]
) -> None:
    experts = kernels.GatedExperts(*weights(40, 24, torch.float32))
    with pytest.raises(IndexError, match=r"-1 is below 0|is not below"):
        experts(torch.ones(3, 40), np.array(pair_rows), np.array(slots))


@pytest.mark.parametrize(
    ("pair_rows", "slots"),
    [
        (np.zeros(2, np.int64), np.zeros(1, np.int64)),
        (np.zeros(1, np.int32), np.zeros(1, np.int32)),
        (np.zeros(1, np.uint64), np.zeros(1, np.uint64)),
        (np.zeros((1, 1), np.int64), np.zeros(1, np.int64)),
    ],
    ids=["lengths", "int32", "uint64", "dimensions"],
)
def test_indices_of_another_kind_are_refused(
    level: str, pair_rows: np.ndarray, slots: np.ndarray
) -> None:
    experts = kernels.GatedExperts(*weights(40, 24, torch.float32))
    with pytest.raises(ValueError, match="int64"):
        experts(torch.ones(3, 40), pair_rows, slots)


def test_an_array_is_given_back_when_the_one_after_it_is_refused(level: str) -> None:
    experts = kernels.GatedExperts(*weights(40, 24, torch.float32))
    pair_rows, slots = np.zeros(1, np.int64), np.full(1, NUM_SLOTS)
    before = sys.getrefcount(pair_rows), sys.getrefcount(slots)
    with pytest.raises(IndexError):
        experts(torch.ones(3, 40), pair_rows, slots)
    assert (sys.getrefcount(pair_rows), sys.getrefcount(slots)) == before


@pytest.mark.parametrize("case", ["half", "mixed", "down", "odd", "transposed", "device"])
def test_weights_of_another_kind_are_refused(case: str) -> None:
    gate_up, down = weights(40, 24, torch.float32)
    refused = {
        "half": (gate_up.half(), down.half()),
        "mixed": (gate_up, down.bfloat16()),
        "down": (gate_up, down[:, :, :23].contiguous()),
        "odd": (gate_up[:, :47].contiguous(), down[:, :, :23].contiguous()),
        "transposed": (gate_up.mT.contiguous().mT, down),
        "device": (gate_up.contiguous().to("meta"), down.contiguous().to("meta")),
    }[case]
    with pytest.raises(ValueError, match=r"fit|gaps|CPU"):
        kernels.GatedExperts(*refused)


@pytest.mark.parametrize(
    "rows",
    [
        torch.ones(3, 41),
        torch.ones(3, 40).bfloat16(),
        torch.ones(40, 3).T,
        torch.ones(3, 40, device="meta"),
    ],
    ids=["width", "dtype", "gaps", "device"],
)
def test_rows_of_another_kind_are_refused(rows: torch.Tensor) -> None:
    experts = kernels.GatedExperts(*weights(40, 24, torch.float32))
    index = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match=r"do not fit experts for 40 numbers"):
        experts(rows, index, index)


def test_they_pay_for_dtypes_that_they_take(level: str) -> None:
    assert kernels.most_pairs_per_expert(torch.float32) > 1
    assert kernels.most_pairs_per_expert(torch.bfloat16) > 1
    assert kernels.most_pairs_per_expert(torch.float16) == 0


def test_weights_may_stand_behind_their_places(product_level: str) -> None:
    gate_up, down = weights(40, 24, torch.bfloat16)
    rows, (pair_rows, slots) = random(9, 40, dtype=torch.bfloat16), random_pairs(9, 64)
    expected = kernels.GatedExperts(gate_up, down)(rows, pair_rows, slots)
    # Each slot has room for so many bytes more; it begins with what does not count.
    room, shifts = 64, np.arange(2 * NUM_SLOTS).reshape(NUM_SLOTS, 2) * 2 % 64
    shifted = []
    for column, each in enumerate((gate_up, down)):
        flat = torch.full((NUM_SLOTS, each[0].numel() + room // 2), 7.0, dtype=torch.bfloat16)
        for slot in range(NUM_SLOTS):
            first = int(shifts[slot, column]) // 2
            flat[slot, first : first + each[0].numel()] = each[slot].reshape(-1)
        shifted.append(flat[:, : each[0].numel()].unflatten(1, each.shape[1:]))
    got = kernels.GatedExperts(*shifted, shifts=shifts)(rows, pair_rows, slots)
    assert torch.equal(got, expected)
    with pytest.raises(ValueError, match="no shifts"):
        kernels.GatedExperts(gate_up, down, shifts=shifts[:-1])
