"""Draws depend on (seed, position) and the logits alone, and filters are transformers'."""

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from services import kernels
from services.model.sampler import are_finite, draw, draw_all, uniform
from services.model.shaping import Shaping
from services.wire.sampling import Sampling


def logits(seed: int, size: int = 64) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


def test_temperature_zero_takes_the_most_likely_token() -> None:
    assert draw(logits(1), Sampling(temperature=0.0, seed=5), 3) == int(logits(1).argmax())


def test_a_draw_is_made_again_the_same() -> None:
    drawn = [draw(logits(2), Sampling(seed=7), position) for position in range(50)]
    assert drawn == [draw(logits(2), Sampling(seed=7), position) for position in range(50)]
    assert len(set(drawn)) > 1


def test_other_seeds_and_positions_draw_otherwise() -> None:
    numbers = {uniform(seed, position) for seed in range(30) for position in range(30)}
    assert len(numbers) == 900
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert abs(sum(numbers) / 900 - 0.5) < 0.05


def test_the_shares_of_draws_are_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    drawn = [draw(probabilities.log(), Sampling(seed=3), position) for position in range(4000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=3) / 4000
    assert torch.allclose(shares, probabilities, atol=0.03)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(seed=5), Sampling(1.4, 0, 0.9, seed=6), Sampling(0.7, 6, 1.0, 0.02, seed=7)],
)
def test_draws_have_the_law_that_transformers_gives_them(sampling: Sampling) -> None:
    num_draws, row = 3000, logits(9, 24) * 0.4
    scores = TemperatureLogitsWarper(sampling.temperature)(torch.empty(0), row.double()[None])
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(torch.empty(0), scores)
    scores = TopPLogitsWarper(sampling.top_p)(torch.empty(0), scores)
    if sampling.min_p:
        scores = MinPLogitsWarper(sampling.min_p)(torch.LongTensor(), scores)
    expected = torch.softmax(scores[0], -1) * num_draws
    drawn = draw_all(row.repeat(num_draws, 1), [sampling] * num_draws, range(num_draws))
    counts = torch.bincount(torch.tensor(drawn), minlength=24).double()
    assert not counts[expected == 0].any()
    # Rare tokens are one kind, or the statistic would have no law that is known.
    rare = expected < 5
    kinds = torch.cat([expected[~rare], expected[rare].sum()[None]])
    found = torch.cat([counts[~rare], counts[rare].sum()[None]])
    kinds, found = kinds[kinds > 0], found[kinds > 0]
    statistic = float(((found - kinds) ** 2 / kinds).sum())
    freedom = len(kinds) - 1
    # Wilson and Hilferty's approximation: beyond it lies one in a million.
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 4.75 * math.sqrt(spread)) ** 3


@pytest.mark.parametrize("size", [1, 2, 64])
def test_filters_may_leave_one_token(size: int) -> None:
    best = int(logits(4, size).argmax())
    for sampling in (Sampling(top_k=1), Sampling(top_p=1e-9), Sampling(min_p=1.0)):
        assert draw(logits(4, size), sampling, 0) == best


@given(
    st.integers(0, 1000),
    st.floats(0.1, 5.0),
    st.integers(0, 20),
    st.floats(0.05, 1.0),
    st.floats(0.0, 0.5),
)
def test_only_tokens_that_transformers_keeps_are_drawn(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    scores = TemperatureLogitsWarper(temperature)(torch.empty(0), logits(seed).double()[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(torch.empty(0), scores)
    # A hair wider, so that rounding at the edge of the kept set decides nothing.
    scores = TopPLogitsWarper(min(1.0, top_p + 1e-6))(torch.empty(0), scores)
    if min_p:
        scores = MinPLogitsWarper(min_p * (1 - 1e-6))(torch.LongTensor(), scores)
    kept = {token for token, score in enumerate(scores[0].tolist()) if score != -math.inf}
    sampling = Sampling(temperature, top_k, top_p, min_p, seed)
    assert {draw(logits(seed), sampling, position) for position in range(40)} <= kept


def test_a_temperature_next_to_zero_is_greedy() -> None:
    assert draw(torch.tensor([1.0, 3.0, -2.0]), Sampling(temperature=1e-308, seed=5), 0) == 1


def drawn_from_all(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    """One draw with the whole vocabulary sorted, written out."""
    probabilities = torch.softmax(logits.double() / sampling.temperature, -1)
    ordered, tokens = torch.sort(probabilities, descending=True, stable=True)
    kept = ordered[: sampling.top_k or None]
    if sampling.top_p < 1.0:
        kept = kept[: int(((kept / kept.sum()).cumsum(0) < sampling.top_p).sum()) + 1]
    kept = kept[kept >= sampling.min_p * kept[0]]
    cumulative = kept.cumsum(0)
    point = uniform(sampling.seed, position) * float(cumulative[-1])
    return int(tokens[min(int(torch.searchsorted(cumulative, point, right=True)), len(kept) - 1)])


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 63, 64, 65, 500]),
    st.sampled_from([0.0, 0.01, 1.0, 4.0]),
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 1.0, 2.0]),
            st.sampled_from([0, 1, 5, 63, 64, 65, 200]),
            st.sampled_from([1.0, 0.95, 0.5, 1e-9]),
            st.sampled_from([0.0, 0.05, 1.0]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_a_batch_draws_for_each_row_what_sorting_the_whole_vocabulary_draws(
    seed: int,
    size: int,
    spread: float,
    fields: list[tuple[float, int, float, float]],
    with_ties: bool,
) -> None:
    rows = torch.stack([logits(seed + row, size) * spread for row in range(len(fields))])
    if with_ties:
        rows = rows.bfloat16().float()
    samplings = [Sampling(*values, seed=seed + row) for row, values in enumerate(fields)]
    positions = list(range(seed, seed + len(fields)))
    expected = [
        drawn_from_all(row, sampling, position) if sampling.temperature else int(row.argmax())
        for row, sampling, position in zip(rows, samplings, positions, strict=True)
    ]
    assert draw_all(rows, samplings, positions) == expected
    with patch.object(kernels, "AVAILABLE", new=False):
        assert draw_all(rows, samplings, positions) == expected


@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from([0.5, 1.05, 1.3, 50.0, None]), min_size=1, max_size=5),
)
def test_a_repetition_penalty_is_transformers_at_every_token(
    seed: int, penalties: list[float | None]
) -> None:
    size = 40
    tokens = [[seed % size, (seed + row) % size] for row in range(len(penalties))]
    shapings = [
        Shaping.wanted(Sampling(repetition_penalty=penalty), prompt) if penalty else None
        for penalty, prompt in zip(penalties, tokens, strict=True)
    ]
    samplings = [
        Sampling(temperature=0.0 if row % 2 else 0.8, seed=seed + row)
        for row in range(len(penalties))
    ]
    for step in range(15):
        rows = torch.stack([logits(seed + 100 * step + row, size) for row in range(len(penalties))])
        processed = [
            RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([known]), row[None])[0]
            if penalty
            else row
            for penalty, known, row in zip(penalties, tokens, rows, strict=True)
        ]
        before = rows.clone()
        drawn = draw_all(rows, samplings, [step] * len(rows), shapings)
        assert drawn == [
            draw(row, each, step) for row, each in zip(processed, samplings, strict=True)
        ]
        assert torch.equal(rows, before)
        for known, shaping, token in zip(tokens, shapings, drawn, strict=True):
            known.append(token)
            if shaping:
                shaping.note(token)


def test_rows_with_anything_that_is_not_a_number_are_not_finite() -> None:
    rows = torch.zeros(4, 9)
    rows[1, 3], rows[2, 8], rows[3, 0] = math.nan, math.inf, -math.inf
    assert are_finite(rows) == [True, False, False, False]
