"""Draws in one call are those from the whole row in order, or none where rounding could decide."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services import kernels

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")

Choice = tuple[float, float, float, float]


def from_all(probabilities: torch.Tensor, choice: Choice) -> int:
    top_k, top_p, min_p, point = choice
    ordered, tokens = torch.sort(probabilities, descending=True, stable=True)
    kept = ordered[: int(top_k) or None]
    if top_p < 1.0:
        kept = kept[: int(((kept / kept.sum()).cumsum(0) < top_p).sum()) + 1]
    kept = kept[kept >= min_p * kept[0]]
    cumulative = kept.cumsum(0)
    place = int(torch.searchsorted(cumulative, point * float(cumulative[-1]), right=True))
    return int(tokens[min(place, len(kept) - 1)])


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 3, 64, 129, 2000]),
    st.sampled_from([0.0, 0.01, 1.0, 5.0, 40.0]),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 50, 1500]),
            st.sampled_from([1.0, 0.9, 0.31]),
            st.sampled_from([0.0, 1e-3, 0.5]),
            st.floats(0.0, 1.0, exclude_max=True),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_draws_are_those_from_the_row_in_order(
    seed: int, width: int, spread: float, choices: list[Choice]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(choices), width, generator=generator) * spread
    probabilities = torch.softmax(logits.bfloat16().double(), -1)  # some are equal
    for row, choice, token in zip(
        probabilities, choices, kernels.draw(probabilities, choices), strict=True
    ):
        assert token in (None, from_all(row, choice))


def test_nothing_is_drawn_only_next_to_where_a_sum_ends() -> None:
    row = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64)

    def drawn(top_p: float, point: float) -> int | None:
        return kernels.draw(row, [(0, top_p, 0.0, point)])[0]

    assert [drawn(1.0, point) for point in (0.0, 0.499, 0.501, 0.749, 0.751)] == [1, 1, 0, 0, 2]
    assert [drawn(1.0, point) for point in (0.5, 0.75 + 1e-12)] == [None, None]
    assert [drawn(top_p, 0.6) for top_p in (0.499, 0.501)] == [1, 1]
    assert [drawn(top_p, 0.7) for top_p in (0.499, 0.501)] == [1, 0]
    assert drawn(0.75, 0.1) is None


def test_a_row_that_is_not_finite_draws_nothing() -> None:
    row = torch.full((1, 100), float("nan"), dtype=torch.float64)
    assert kernels.draw(row, [(5, 0.9, 0.1, 0.5)]) == [None]


@pytest.mark.parametrize(
    "probabilities",
    [
        torch.ones(2, 3),
        torch.ones(1, 3, dtype=torch.float64),
        torch.ones(3, 2, dtype=torch.float64).T,
        torch.ones(2, 0, dtype=torch.float64),
    ],
)
def test_probabilities_of_another_kind_are_refused(probabilities: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        kernels.draw(probabilities, [(0, 1.0, 0.0, 0.5)] * 2)
