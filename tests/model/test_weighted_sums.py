"""Sums of rows: right whatever the order, in float32, and of a sum's own rows alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.model.weighted_sums import weighted_sums

SEEDS = st.integers(0, 2**32 - 1)


def one_by_one(
    rows: torch.Tensor, sum_of_row: np.ndarray, num_sums: int, weights: np.ndarray | None
) -> torch.Tensor:
    sums = torch.zeros(num_sums, rows.shape[1], dtype=torch.float64)
    for place, number in enumerate(sum_of_row):
        sums[number] += rows[place].double() * (1.0 if weights is None else float(weights[place]))
    return sums


@given(
    st.lists(st.integers(0, 5), max_size=20),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
    SEEDS,
)
def test_every_row_is_added_once_to_its_sum(
    sum_of_row: list[int], is_weighted: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = torch.from_numpy(generator.standard_normal((len(sum_of_row), 7), np.float32)).to(dtype)
    weights = generator.standard_normal(len(sum_of_row), np.float32) if is_weighted else None
    numbers = np.array(sum_of_row, np.int64)
    sums = weighted_sums(rows, numbers, 6, weights)
    assert sums.dtype is torch.float32
    assert sums.shape == (6, 7)
    torch.testing.assert_close(
        sums.double(), one_by_one(rows, numbers, 6, weights), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("width", [1, 31, 192, 2048])
def test_the_bits_of_a_sum_are_those_of_its_rows_in_their_order(width: int) -> None:
    rows = torch.randn(9, width)
    weights = np.random.default_rng(0).standard_normal(9, np.float32)
    mixed = weighted_sums(rows, np.array([3, 0, 3, 1, 0, 3, 2, 1, 3]), 4, weights)
    own = np.array([0, 2, 5, 8])
    alone = weighted_sums(rows[own], np.zeros(4, np.int64), 1, weights[own])
    assert torch.equal(mixed[3], alone[0])


def test_what_is_not_finite_stays_in_its_own_sum() -> None:
    rows = torch.tensor([[1.0], [float("nan")], [2.0]])
    sums = weighted_sums(rows, np.array([0, 1, 0]), 2, np.ones(3, np.float32))
    assert sums[0] == 3.0
    assert sums[1].isnan()
