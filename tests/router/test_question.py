"""What two honest computations of a row may differ by is no deviation."""

import pytest
import torch

from services.router.peers.question import TOLERANCES, deviation, tolerance


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_last_digit_of_a_type_is_no_deviation_however_small_a_row_is(
    dtype: torch.dtype,
) -> None:
    kind = torch.finfo(dtype)
    for size in (kind.tiny * kind.eps, kind.tiny * 0.01, kind.tiny, 1.0):
        reference = torch.full((1, 4), size, dtype=dtype)
        rows = torch.nextafter(reference, torch.full_like(reference, 2.0))
        assert not torch.equal(rows, reference)
        assert deviation(rows, reference) <= tolerance(dtype)


def test_a_row_that_is_other_numbers_deviates() -> None:
    reference = torch.full((1, 4), 1e-3, dtype=torch.float16)
    assert deviation(-reference, reference) > tolerance(torch.float16)
