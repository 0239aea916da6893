"""Running means by power of two of the size."""

import pytest

from services.runtime.mean_by_size import MeanBySize


def test_the_first_value_counts_whole_and_later_ones_a_share() -> None:
    means = MeanBySize(smoothing=0.25)
    assert means.mean(5) is None
    means.add(5, 8.0)
    assert means.mean(5) == 8.0
    means.add(5, 0.0)
    assert means.mean(5) == 6.0


def test_sizes_of_as_many_bits_have_a_mean_in_common_and_others_do_not() -> None:
    means = MeanBySize(smoothing=0.5)
    for size, value in ((4, 1.0), (7, 3.0), (8, 100.0), (0, 50.0)):
        means.add(size, value)
    assert [means.mean(size) for size in (0, 1, 4, 7, 8, 15, 16)] == [
        *(50.0, None, 2.0, 2.0, 100.0, 100.0, None)
    ]
    assert len(means) == 3


@pytest.mark.parametrize(
    ("met", "size", "fitted"),
    [((), 5, None), ((2, 5, 64), 6, 5.0 * 6), ((2, 5, 64), 33, 5.0 * 33), ((32, 64), 3, 32.0 * 64)],
)
def test_a_fit_is_by_that_size_or_smaller_and_else_a_whole_larger_one(
    met: tuple[int, ...], size: int, fitted: float | None
) -> None:
    means = MeanBySize(smoothing=0.5)
    for other in met:
        means.add(other, float(other))
    assert means.fitted(size) == fitted
