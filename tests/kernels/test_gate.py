"""The gate against torch's own operations, above all in what it chooses among equals."""

import pytest
import torch
import torch.nn.functional as F

from services import kernels
from services.kernels import Choice
from services.model.fused_gate import chosen_by_torch
from tests.kernels.numbers import DTYPES, assert_close, random

FORMS = [(True, True), (True, False), (False, False)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("softmax_first", "renormalise"), FORMS)
@pytest.mark.parametrize("weights_dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("num_experts", "num_chosen"), [(4, 4), (8, 1), (16, 2), (60, 4), (128, 8), (130, 17)]
)
@pytest.mark.parametrize("num_values", [1, 3, 12, 100])
def test_among_equals_the_choice_is_torch_s(
    level: str,
    dtype: torch.dtype,
    softmax_first: bool,
    renormalise: bool,
    weights_dtype: torch.dtype,
    num_experts: int,
    num_chosen: int,
    num_values: int,
) -> None:
    # The identity as rows makes the columns of the weight the logits; whole numbers a quarter apart
    # are exact.
    generator = torch.Generator().manual_seed(num_values)
    weight = (torch.randint(num_values, (num_experts, 40), generator=generator) / 4).to(dtype)
    choice = Choice(num_chosen, softmax_first, renormalise, weights_dtype)
    logits, weights, indices = kernels.Gate(weight, None, choice)(torch.eye(40, dtype=dtype))
    expected_weights, expected_indices = chosen_by_torch(weight.T.contiguous(), choice)
    assert torch.equal(logits, weight.T)
    assert torch.equal(indices, expected_indices)
    assert weights.dtype is weights_dtype
    assert_close(
        weights, expected_weights.double(), units=4 if weights_dtype is torch.float32 else 1
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_logits_are_those_of_a_linear_layer(
    level: str, dtype: torch.dtype, with_bias: bool
) -> None:
    rows, weight = random(9, 50, dtype=dtype), random(16, 50, dtype=dtype, seed=1)
    bias = random(16, dtype=dtype, seed=2) if with_bias else None
    choice = Choice(2, True, True, dtype)
    logits, weights, indices = kernels.Gate(weight, bias, choice)(rows)
    assert torch.equal(logits, kernels.linear(rows, weight, bias))
    expected_weights, expected_indices = chosen_by_torch(logits, choice)
    assert torch.equal(indices, expected_indices)
    assert_close(weights, expected_weights.double(), units=4 if dtype is torch.float32 else 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_has_the_same_bits_alone_and_among_others(level: str, dtype: torch.dtype) -> None:
    rows, weight = random(21, 48, dtype=dtype), random(12, 48, dtype=dtype, seed=1)
    gate = kernels.Gate(weight, None, Choice(3, True, True, torch.float32))
    together = gate(rows)
    for place in range(len(rows)):
        alone = gate(rows[place : place + 1])
        assert all(
            torch.equal(one[0], many[place]) for one, many in zip(alone, together, strict=True)
        )


def test_rows_may_be_apart_and_may_be_none(level: str) -> None:
    wide, weight = random(6, 100, dtype=torch.float32), random(8, 40, dtype=torch.float32, seed=1)
    gate = kernels.Gate(weight, None, Choice(2, False, False, torch.float32))
    for apart, close in zip(gate(wide[:, 30:70]), gate(wide[:, 30:70].contiguous()), strict=True):
        assert torch.equal(apart, close)
    assert [result.shape for result in gate(wide[:0, :40])] == [(0, 8), (0, 2), (0, 2)]


def test_what_is_not_a_number_is_chosen_first_as_by_torch(level: str) -> None:
    weight = torch.zeros(8, 1)
    weight[[2, 5]] = float("nan")
    _, weights, indices = kernels.Gate(weight, None, Choice(2, False, False, torch.float32))(
        torch.ones(1, 1)
    )
    assert torch.equal(indices, F.linear(torch.ones(1, 1), weight).topk(2).indices)
    assert weights.isnan().all()


@pytest.mark.parametrize(
    ("weight", "num_chosen", "weights_dtype"),
    [
        (torch.ones(8, 4), 9, torch.float32),
        (torch.ones(8, 4), 0, torch.float32),
        (torch.ones(32, 4), 18, torch.float32),  # torch sorts so many by another algorithm
        (torch.ones(128, 4), 2, torch.float32),  # and these in part
        (torch.ones(8, 4).half(), 2, torch.float32),
        (torch.ones(8, 4), 2, torch.float16),
        (torch.ones(4, 8).T, 2, torch.float32),
    ],
)
def test_other_gates_are_refused(
    level: str, weight: torch.Tensor, num_chosen: int, weights_dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match=r"experts|served|gaps"):
        kernels.Gate(weight, None, Choice(num_chosen, True, True, weights_dtype))


@pytest.mark.parametrize(
    "rows", [torch.ones(2, 5), torch.ones(2, 4).bfloat16(), torch.ones(4, 2).T]
)
def test_other_rows_are_refused(level: str, rows: torch.Tensor) -> None:
    gate = kernels.Gate(torch.ones(8, 4), None, Choice(2, True, True, torch.float32))
    with pytest.raises(ValueError, match="do not fit"):
        gate(rows)
    with pytest.raises(ValueError, match="does not fit"):
        kernels.Gate(torch.ones(8, 4), torch.ones(7), Choice(2, True, True, torch.float32))
