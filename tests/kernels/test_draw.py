"""Draws in one call are those from the whole row in order, or none where rounding could decide."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services import kernels

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels are not built")

Choice = tuple[float, float, float, float, float]


def from_all(row: torch.Tensor, choice: Choice) -> int:
    temperature, top_k, top_p, min_p, point = choice
    if not temperature:
        return int(row.argmax())
    ordered, tokens = torch.sort(row, descending=True, stable=True)
    kept = torch.softmax((ordered.double() - ordered[0]) / temperature, -1)
    kept = kept[: int(top_k) or None]
    if top_p < 1.0:
        kept = kept[: int(((kept / kept.sum()).cumsum(0) < top_p).sum()) + 1]
    kept = kept[kept >= min_p * kept[0]]
    cumulative = kept.cumsum(0)
    place = int(torch.searchsorted(cumulative, point * float(cumulative[-1]), right=True))
    return int(tokens[min(place, len(kept) - 1)])


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 3, 64, 129, 2000, 20_000]),
    st.sampled_from([0.0, 0.01, 1.0, 5.0, 40.0]),
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1e-308, 0.05, 0.7, 1.0, 100.0]),
            st.sampled_from([0, 1, 50, 1500]),
            st.sampled_from([1.0, 0.9, 0.31]),
            st.sampled_from([0.0, 1e-3, 0.5, 1.0]),
            st.floats(0.0, 1.0, exclude_max=True),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["all", "ties", "few", "peak"]),
)
def test_draws_are_those_from_the_row_in_order(
    seed: int, width: int, spread: float, choices: list[Choice], kind: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(choices), width, generator=generator) * spread
    if kind == "ties":
        rows = rows.bfloat16().float()
    if kind == "few":
        rows[:, torch.rand(width, generator=generator) < 0.9] = -math.inf
        rows[:, seed % width] = 0.5
    if kind == "peak":
        rows[:, seed % width] += 12.0
    for level in kernels.LEVELS:
        kernels.set_level(level)
        drawn = kernels.draw(list(rows), choices)
        for row, choice, token in zip(rows, choices, drawn, strict=True):
            expected = from_all(row, choice)
            assert token in (None, expected)
            assert row[expected] > -math.inf
    kernels.set_level(kernels.LEVELS[0])


@pytest.mark.parametrize("spread", [0.01, 0.5, 3.0])
@pytest.mark.parametrize(
    "filters", [(0, 1.0, 0.0), (0, 0.9, 0.0), (0, 0.95, 0.02), (0, 1.0, 0.1), (50, 0.9, 0.0)]
)
def test_a_large_vocabulary_needs_no_order(
    spread: float, filters: tuple[int, float, float]
) -> None:
    row = torch.randn(151_936, generator=torch.Generator().manual_seed(1)) * spread
    choices = [(0.8, *filters, point / 7) for point in range(7)]
    drawn = kernels.draw([row] * 7, choices)
    assert drawn == [from_all(row, choice) for choice in choices]


def test_nothing_is_drawn_only_next_to_where_a_sum_ends() -> None:
    row = torch.tensor([0.25, 0.5, 0.25]).log()
    row[1] = row[0] + math.log(2)

    def drawn(top_p: float, point: float) -> int | None:
        return kernels.draw([row], [(1.0, 0, top_p, 0.0, point)])[0]

    assert [drawn(1.0, point) for point in (0.0, 0.499, 0.501, 0.749, 0.751)] == [1, 1, 0, 0, 2]
    assert [drawn(top_p, 0.6) for top_p in (0.499, 0.501)] == [1, 1]
    assert [drawn(top_p, 0.7) for top_p in (0.499, 0.501)] == [1, 0]
    even = torch.zeros(4)
    assert (
        kernels.draw([even] * 2, [(1.0, 0, 1.0, 0.0, 0.5), (1.0, 0, 0.75, 0.0, 0.1)]) == [None] * 2
    )


def test_more_tokens_than_blocks_are_left_to_the_order_of_the_whole_row() -> None:
    row = torch.randn(6400, generator=torch.Generator().manual_seed(2))
    assert kernels.draw([row], [(1.0, 100, 1.0, 0.0, 0.5)])[0] is not None
    assert kernels.draw([row], [(1.0, 101, 1.0, 0.0, 0.5)]) == [None]


@pytest.mark.parametrize("number", [math.nan, -math.inf, math.inf])
def test_a_row_without_numbers_draws_nothing(number: float) -> None:
    row = torch.full((100,), number)
    assert kernels.draw([row], [(1.0, 5, 0.9, 0.1, 0.5)]) == [None]


@pytest.mark.parametrize(
    "rows",
    [
        [torch.ones(3, dtype=torch.float64)] * 2,
        [torch.ones(3), torch.ones(4)],
        [torch.ones(6)[::2]] * 2,
        [torch.ones(0)] * 2,
        [torch.ones(3)],
    ],
)
def test_logits_of_another_kind_are_refused(rows: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        kernels.draw(rows, [(1.0, 0, 1.0, 0.0, 0.5)] * 2)
