"""What two honest computations of a row may differ by is no deviation."""

import numpy as np
import pytest
import torch

from services.router.peers.question import TOLERANCES, Question, tolerance

ONE = np.zeros(1, np.uint32)


def question(dtype: torch.dtype, *, weighted: bool = False) -> Question:
    """Of one row, whose largest number is 2, and one expert."""
    weights = np.ones(1, np.float32) if weighted else None
    return Question(0, torch.tensor([[2.0, -1.0, 0.0, 0.5]], dtype=dtype), ONE, ONE, weights)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_last_digit_of_a_type_is_no_deviation_however_small_a_row_is(
    dtype: torch.dtype,
) -> None:
    kind = torch.finfo(dtype)
    for size in (kind.tiny * kind.eps, kind.tiny * 0.01, kind.tiny, 1.0):
        reference = torch.full((1, 4), size, dtype=dtype)
        rows = torch.nextafter(reference, torch.full_like(reference, 2.0))
        assert not torch.equal(rows, reference)
        assert question(dtype).deviation(rows, reference) <= tolerance(dtype)


def test_a_row_that_is_other_numbers_deviates() -> None:
    reference = torch.full((1, 4), 1e-3, dtype=torch.float16)
    assert question(torch.float16).deviation(-reference, reference) > tolerance(torch.float16)


@pytest.mark.parametrize("weighted", [False, True], ids=["pairs", "sums"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_of_a_row_of_zeros_what_rounding_leaves_of_it_elsewhere_is_no_deviation(
    dtype: torch.dtype, weighted: bool
) -> None:
    asked, zeros = question(dtype, weighted=weighted), torch.zeros(1, 4, dtype=dtype)
    assert asked.deviation(zeros, zeros) == 0.0
    rounding = torch.full_like(zeros, torch.finfo(dtype).eps)
    for rows in (rounding, -rounding):
        assert asked.deviation(rows, zeros) <= tolerance(dtype)
    assert asked.deviation(8 * rounding, zeros) > tolerance(dtype)
    assert asked.deviation(torch.full_like(zeros, torch.nan), zeros) == torch.inf
