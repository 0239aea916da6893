"""Rows that are not finite are told from those that are by their bits, whatever their type."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.wire.row_bytes import are_finite, finite_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(number=st.floats(allow_nan=True), row=st.integers(0, 3), column=st.integers(0, 4))
def test_rows_are_finite_as_torch_finds_them(
    dtype: torch.dtype, number: float, row: int, column: int
) -> None:
    rows = torch.full((4, 5), torch.finfo(dtype).max, dtype=dtype)
    rows[row, column] = torch.tensor(number, dtype=torch.float64).to(dtype)
    assert finite_rows(rows).tolist() == rows.isfinite().all(1).tolist()
    assert are_finite(rows) == bool(rows.isfinite().all())


def test_rows_of_no_numbers_are_finite() -> None:
    assert are_finite(torch.full((2, 1), math.nan)[:0])
    assert are_finite(torch.empty(0, 8))
    assert finite_rows(torch.empty(0, 8)).tolist() == []
