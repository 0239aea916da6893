"""The linear layer against float64, and that a row's bits are its own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from services import kernels
from tests.kernels.numbers import DTYPES, assert_close, random, unaligned

# Whole registers, parts of one, and both; single outputs; the shapes of the shipped model.
SHAPES = [(1, 1), (1, 64), (3, 7), (4, 31), (5, 33), (13, 70), (192, 96), (96, 192), (66, 257)]


def exact(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    return F.linear(rows.double(), weight.double(), None if bias is None else bias.double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_outputs", "width"), SHAPES)
def test_it_is_the_matrix_product_rounded_once(
    product_level: str, dtype: torch.dtype, num_outputs: int, width: int
) -> None:
    weight, bias = (
        random(num_outputs, width, dtype=dtype, seed=1),
        random(num_outputs, dtype=dtype, seed=2),
    )
    units = 4 if dtype is torch.float32 else 0.51
    for num_rows in (1, 2, 3, 4, 5, 8, 17):
        rows = random(num_rows, width, dtype=dtype)
        assert_close(kernels.linear(rows, weight), exact(rows, weight), units=units)
        assert_close(kernels.linear(rows, weight, bias), exact(rows, weight, bias), units=units)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_outputs", "width"), SHAPES)
def test_a_row_has_the_same_bits_alone_and_anywhere_among_others(
    product_level: str, dtype: torch.dtype, num_outputs: int, width: int
) -> None:
    rows, weight = random(21, width, dtype=dtype), random(num_outputs, width, dtype=dtype, seed=1)
    alone = torch.cat([kernels.linear(row[None], weight) for row in rows])
    for num_rows in range(1, 22):
        assert torch.equal(kernels.linear(rows[:num_rows], weight), alone[:num_rows])
    assert torch.equal(kernels.linear(rows.flip(0), weight).flip(0), alone)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_addresses_and_gaps_between_rows_change_nothing(
    product_level: str, dtype: torch.dtype
) -> None:
    wide, weight = random(6, 150, dtype=dtype), random(9, 70, dtype=dtype, seed=1)
    rows = wide[:, 40:110]
    expected = kernels.linear(rows.contiguous(), weight)
    assert torch.equal(kernels.linear(rows, weight), expected)
    assert torch.equal(kernels.linear(unaligned(rows), unaligned(weight)), expected)
    gapped = torch.cat([weight, weight], dim=1)[:, :70]
    assert torch.equal(kernels.linear(rows, gapped), expected)


@pytest.mark.usefixtures("product_level_of_examples")
@given(
    num_rows=st.integers(0, 20),
    num_outputs=st.integers(0, 40),
    width=st.integers(0, 150),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape(num_rows: int, num_outputs: int, width: int, dtype: torch.dtype) -> None:
    rows, weight = (
        random(num_rows, width, dtype=dtype),
        random(num_outputs, width, dtype=dtype, seed=1),
    )
    got = kernels.linear(rows, weight)
    assert got.shape == (num_rows, num_outputs)
    if got.numel():
        # Sums are of float32, whose roundings go by the terms, which may cancel each other; the
        # result is rounded once more.
        terms = exact(rows.abs(), weight.abs())
        off = (got.double() - exact(rows, weight)).abs()
        rounding = 0.51 * torch.finfo(dtype).eps * exact(rows, weight).abs()
        assert (off <= rounding + torch.finfo(torch.float32).eps * terms).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_stays_so(product_level: str, dtype: torch.dtype) -> None:
    rows, weight = random(3, 40, dtype=dtype), random(5, 40, dtype=dtype, seed=1)
    rows[0, 7], rows[1, 39] = float("nan"), float("inf")
    got = kernels.linear(rows, weight)
    assert got[0].isnan().all()
    assert got[1].isinf().all()
    assert got[2].isfinite().all()


def test_it_rounds_to_the_nearest_and_halves_to_even(product_level: str) -> None:
    # 1 + 1/256 and 1 + 3/256 lie halfway between neighbours.
    weight = torch.tensor(
        [[1.0, 2**-8], [1.0, 3 * 2**-8], [1.0, 2**-8 + 2**-10]], dtype=torch.bfloat16
    )
    got = kernels.linear(torch.ones(1, 2, dtype=torch.bfloat16), weight)
    assert got[0].tolist() == [1.0, 1.015625, 1.0078125]


@pytest.mark.parametrize(
    ("rows", "weight", "bias"),
    [
        (torch.ones(2, 4, dtype=torch.float16), torch.ones(3, 4, dtype=torch.float16), None),
        (torch.ones(2, 4), torch.ones(3, 4, dtype=torch.bfloat16), None),
        (torch.ones(2, 4), torch.ones(3, 5), None),
        (torch.ones(4, 2).t(), torch.ones(3, 4), None),
        (torch.ones(2, 4), torch.ones(4, 3).t(), None),
        (torch.ones(2, 4), torch.ones(3, 4), torch.ones(4)),
        (torch.ones(2, 4), torch.ones(3, 4), torch.ones(3, dtype=torch.bfloat16)),
        (torch.ones(2, 4, device="meta"), torch.ones(3, 4), None),
    ],
    ids=[
        "half",
        "mixed",
        "widths",
        "rows' steps",
        "weight's steps",
        "bias's length",
        "bias's dtype",
        "device",
    ],
)
def test_what_it_does_not_take_is_refused(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> None:
    with pytest.raises(ValueError, match=r"rows|bias"):
        kernels.linear(rows, weight, bias)


def test_it_pays_for_few_rows_of_dtypes_that_it_takes(level: str) -> None:
    assert kernels.linear_pays(1, torch.ones(2, 2))
    assert not kernels.linear_pays(100_000, torch.ones(2, 2))
    assert not kernels.linear_pays(1, torch.ones(2, 2, dtype=torch.float16))
