"""Experts of every kind in one call, against torch one pair at a time, and their activations
against float64.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from services import kernels
from services.kernels import Activation, Biases, ExpertKind
from services.model.expert_kind import between_by_torch
from tests.kernels.numbers import DTYPES, assert_close, random, unaligned

NUM_SLOTS = 3
# gpt-oss's but for its limit, which fewer numbers would reach.
CLAMPED = ExpertKind(Activation.SCALED_SIGMOID, True, True, 0.7, 1.702, 1.0)
KINDS = {
    "silu": ExpertKind(),
    "gpt-oss": CLAMPED,
    "clamped halves": CLAMPED._replace(is_interleaved=False, offset=0.0),
    "gelu": ExpertKind(Activation.GELU),
    "gelu tanh, interleaved": ExpertKind(Activation.GELU_TANH, is_interleaved=True),
    "relu, limited": ExpertKind(Activation.RELU, limit=0.3),
    "squared relu, no gate": ExpertKind(Activation.RELU_SQUARED, is_gated=False),
    "gelu, no gate": ExpertKind(Activation.GELU, is_gated=False),
}
# hidden and intermediate: what fills registers and tiles, what does not, and a strip of many
# outputs
SIZES = [(192, 96), (37, 11), (17, 1100)]
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_layout = pytest.mark.parametrize("is_transposed", [False, True], ids=["linear", "transposed"])


def made(
    kind: ExpertKind, hidden: int, intermediate: int, dtype: torch.dtype, *, is_transposed: bool
) -> tuple[torch.Tensor, torch.Tensor, Biases]:
    """gate_up, down and biases, with gaps between slots as the pool has them."""
    entered = intermediate * (2 if kind.is_gated else 1)
    shapes = [(entered, hidden), (hidden, intermediate), (entered,), (hidden,)]
    sizes = [hidden**-0.5, intermediate**-0.5, 0.3, 0.3]
    found = []
    for seed, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
        shape = shape[::-1] if is_transposed else shape
        flat = random(NUM_SLOTS, math.prod(shape) + 32, dtype=torch.float32, seed=seed) * size
        found.append(flat.to(dtype)[:, :-32].unflatten(1, shape))
    return found[0], found[1], (found[2], found[3])


def by_torch(
    row: torch.Tensor,
    slot: int,
    kind: ExpertKind,
    weights: tuple[torch.Tensor, torch.Tensor],
    biases: Biases | None,
    *,
    is_transposed: bool,
) -> torch.Tensor:
    """As transformers' grouped_mm path computes it, which rounds after every operation."""
    into, down = (weight[slot].T if is_transposed else weight[slot] for weight in weights)
    entered = F.linear(row[None], into)
    if biases is not None:
        entered.add_(biases[0][slot])
    left = F.linear(between_by_torch(kind, entered), down)
    if biases is not None:
        left.add_(biases[1][slot])
    return left[0]


@each_dtype
@each_layout
@each_kind
@pytest.mark.parametrize(("hidden", "intermediate"), SIZES)
def test_pairs_are_their_experts_results_and_have_the_same_bits_alone(
    product_level: str,
    dtype: torch.dtype,
    is_transposed: bool,
    kind: ExpertKind,
    hidden: int,
    intermediate: int,
) -> None:
    gate_up, down, biases = made(kind, hidden, intermediate, dtype, is_transposed=is_transposed)
    rows = random(9, hidden, dtype=dtype)
    pair_rows, slots = np.arange(23) % 9, np.arange(23) * 7 % NUM_SLOTS
    for given in (None, biases):
        experts = kernels.GatedExperts(
            gate_up, down, kind, biases=given, is_transposed=is_transposed
        )
        together = experts(rows, pair_rows, slots)
        expected = [
            by_torch(
                rows[row], int(slot), kind, (gate_up, down), given, is_transposed=is_transposed
            )
            for row, slot in zip(pair_rows, slots, strict=True)
        ]
        units = 16 if dtype is torch.float32 else 1
        assert_close(together, torch.stack(expected).double(), units=units)
        for pair in range(0, 23, 5):
            row = unaligned(rows[pair_rows[pair]][None])
            alone = experts(row, np.zeros(1, np.int64), slots[pair : pair + 1])
            assert torch.equal(alone[0], together[pair])


@each_dtype
def test_rows_in_the_hundreds_have_the_bits_that_they_have_alone(
    product_level: str, dtype: torch.dtype
) -> None:
    """More sums than there is room for are divided by outputs and by rows."""
    gate_up, down, biases = made(CLAMPED, 24, 600, dtype, is_transposed=True)
    experts = kernels.GatedExperts(gate_up, down, CLAMPED, biases=biases, is_transposed=True)
    rows = random(301, 24, dtype=dtype)
    together = experts(rows, np.arange(301), np.ones(301, np.int64))
    for row in (0, 1, 127, 128, 299, 300):
        alone = experts(rows[row : row + 1], np.zeros(1, np.int64), np.ones(1, np.int64))
        assert torch.equal(alone[0], together[row])


EXACT: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    Activation.SILU: F.silu,
    Activation.GELU: lambda x: x * 0.5 * torch.special.erfc(-x * 0.5**0.5),
    # 0.5 (1 + tanh y) is sigmoid(2 y), which is exact where it is small.
    Activation.GELU_TANH: lambda x: x * torch.sigmoid((8 / math.pi) ** 0.5 * (x + 0.044715 * x**3)),
    Activation.RELU: F.relu,
    Activation.RELU_SQUARED: lambda x: F.relu(x).square(),
    Activation.SCALED_SIGMOID: lambda x: x * torch.sigmoid(1.702 * x),
}


def activated(activation: Activation, numbers: torch.Tensor) -> torch.Tensor:
    """By experts without a gate whose weights are 1, one for each number."""
    ones = torch.ones(len(numbers), 1, 1, dtype=numbers.dtype)
    kind = ExpertKind(activation, is_gated=False, scale=1.702)
    each = np.arange(len(numbers))
    return kernels.GatedExperts(ones, ones, kind)(numbers[:, None], each, each)[:, 0]


@pytest.mark.parametrize("activation", Activation, ids=lambda each: each.name)
def test_activations_are_exact_to_a_few_roundings_wherever_they_are_not_tiny(
    level: str, activation: Activation
) -> None:
    numbers = torch.cat([torch.linspace(-9, 9, 20001), torch.linspace(-1e-3, 1e-3, 101)])
    exact = EXACT[activation](numbers.double())
    off = (activated(activation, numbers).double() - exact).abs()
    # Powers of x are rounded before e is raised to them, so that the tail is off by more.
    allowed = torch.finfo(torch.float32).eps * (4 + 2 * numbers.double() ** 2) * exact.abs()
    assert (off <= allowed + 1e-37).all()


@each_dtype
@pytest.mark.parametrize("activation", Activation, ids=lambda each: each.name)
def test_activations_far_from_zero_are_closed_or_open(
    level: str, dtype: torch.dtype, activation: Activation
) -> None:
    numbers = torch.tensor([-1e30, -1000.0, -50.0, -0.0, 0.0, 50.0, 1000.0, 1e15]).to(dtype)
    exact = EXACT[activation](numbers.double()).to(dtype)
    got = activated(activation, numbers)
    assert torch.allclose(got, exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
    assert activated(activation, torch.tensor([math.nan]).to(dtype)).isnan().all()


def test_limits_keep_what_is_no_number(level: str) -> None:
    row = torch.tensor([[math.nan, 1.0]])
    gate_up = torch.eye(2)[None]
    experts = kernels.GatedExperts(gate_up, torch.ones(1, 2, 1), CLAMPED)
    index = np.zeros(1, np.int64)
    assert experts(row, index, index).isnan().all()
    assert experts(row.flip(1), index, index).isnan().all()


@pytest.mark.parametrize("case", ["gate", "no gate", "transposed", "bias", "gaps"])
def test_weights_that_are_not_of_the_kind_are_refused(case: str) -> None:
    gate_up, down, biases = made(ExpertKind(), 40, 24, torch.float32, is_transposed=False)
    ungated = ExpertKind(is_gated=False)
    wrong_bias = (biases[0][:, :-1].contiguous(), biases[1])
    refused: dict[str, Callable[[], object]] = {
        "gate": lambda: kernels.GatedExperts(gate_up[:, :24].contiguous(), down),
        "no gate": lambda: kernels.GatedExperts(gate_up, down, ungated),
        "transposed": lambda: kernels.GatedExperts(gate_up, down, is_transposed=True),
        "bias": lambda: kernels.GatedExperts(gate_up, down, biases=wrong_bias),
        "gaps": lambda: kernels.GatedExperts(
            gate_up, down, biases=(biases[0].repeat(1, 2)[:, ::2], biases[1])
        ),
    }
    with pytest.raises(ValueError, match=r"does not fit|gaps"):
        refused[case]()
