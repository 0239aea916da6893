"""Every pair lands in exactly one frame, with its row, whatever the placement."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.router.dispatch.capacity import capacity_of, find_overflow
from services.router.dispatch.frame_pairs import NOBODY, pairs_by_frame

pytestmark = pytest.mark.usefixtures("with_and_without_kernels")


@st.composite
def routings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    num_experts = draw(st.integers(1, 12))
    top_k = draw(st.integers(1, num_experts))
    tokens = draw(st.integers(1, 20))
    rows = [draw(st.permutations(range(num_experts)))[:top_k] for _ in range(tokens)]
    owners = draw(st.lists(st.integers(NOBODY, 3), min_size=num_experts, max_size=num_experts))
    return np.array(rows).reshape(-1), np.array(owners), top_k


@given(routings(), st.integers(1, 9))
def test_each_pair_is_in_one_frame_and_each_row_once_in_a_frame(
    routing: tuple[np.ndarray, np.ndarray, int], max_pairs: int
) -> None:
    experts, owners, top_k = routing
    frames = pairs_by_frame(experts, owners, top_k, max_pairs)
    positions = np.concatenate([pairs.positions for pairs in frames])
    assert sorted(positions) == list(range(len(experts)))
    for pairs in frames:
        assert (owners[pairs.experts] == pairs.service).all()
        assert (experts[pairs.positions] == pairs.experts).all()
        assert (pairs.rows[pairs.pair_rows] == pairs.positions // top_k).all()
        assert len(set(pairs.rows)) == len(pairs.rows)
        assert len(set(pairs.experts)) == pairs.num_experts
        assert len(pairs.positions) <= max_pairs or len(pairs.rows) == 1


@given(routings(), st.integers(1, 9))
def test_frames_may_be_limited_by_rows_instead_and_are_as_large_as_that_allows(
    routing: tuple[np.ndarray, np.ndarray, int], max_rows: int
) -> None:
    experts, owners, top_k = routing
    frames = pairs_by_frame(experts, owners, top_k, max_rows, counts_rows=True)
    assert sorted(np.concatenate([pairs.positions for pairs in frames])) == list(
        range(len(experts))
    )
    for service in {pairs.service for pairs in frames}:
        sizes = [len(pairs.rows) for pairs in frames if pairs.service == service]
        assert all(size == max_rows for size in sizes[:-1])
        assert 1 <= sizes[-1] <= max_rows
        rows = np.concatenate([pairs.rows for pairs in frames if pairs.service == service])
        assert len(set(rows)) == len(rows)
    for pairs in frames:
        assert (pairs.rows[pairs.pair_rows] == pairs.positions // top_k).all()


@given(routings(), st.integers(1, 9), st.randoms(use_true_random=False))
def test_combining_replies_in_any_order_gives_the_local_sum(
    routing: tuple[np.ndarray, np.ndarray, int], max_pairs: int, random: object
) -> None:
    experts, owners, top_k = routing
    owners = np.maximum(owners, 0)
    tokens = len(experts) // top_k
    hidden, scale = torch.randn(tokens, 8), torch.randn(len(owners), 8)
    weights = torch.rand(tokens, top_k)
    frames = pairs_by_frame(experts, owners, top_k, max_pairs)
    random.shuffle(frames)  # type: ignore[attr-defined]
    gathered = torch.zeros(tokens * top_k, 8)
    for pairs in frames:
        rows = hidden[torch.from_numpy(pairs.rows)][
            torch.from_numpy(pairs.pair_rows.astype(np.int64))
        ]
        positions = torch.from_numpy(pairs.positions)
        gathered.index_copy_(0, positions, rows * scale[torch.from_numpy(experts)[positions]])
    combined = (gathered.view(tokens, top_k, 8) * weights[..., None]).sum(1)
    each = hidden[:, None] * scale[torch.from_numpy(experts.reshape(tokens, top_k))]
    assert torch.equal(combined, (each * weights[..., None]).sum(1))


@given(routings(), st.lists(st.integers(1, 9), min_size=4, max_size=4), st.booleans())
def test_each_service_has_a_limit_of_its_own(
    routing: tuple[np.ndarray, np.ndarray, int], most: list[int], counts_rows: bool
) -> None:
    experts, owners, top_k = routing
    frames = pairs_by_frame(experts, owners, top_k, most, counts_rows=counts_rows)
    for service in range(len(most)):
        theirs = [pairs for pairs in frames if pairs.service == service]
        alone = np.where(owners == service, service, NOBODY)
        if theirs:
            alike = pairs_by_frame(experts, alone, top_k, most[service], counts_rows=counts_rows)
            assert [pairs.positions.tolist() for pairs in theirs] == [
                pairs.positions.tolist() for pairs in alike if pairs.service == service
            ]


def test_a_dropped_pair_is_in_no_frame() -> None:
    frames = pairs_by_frame(np.array([0, -1, 1, 0]), np.array([0, 0]), 2, 100)
    assert [pairs.positions.tolist() for pairs in frames] == [[0, 2, 3]]


def test_capacity_is_shared_by_tokens_and_rounded_up() -> None:
    assert capacity_of(1.0, num_tokens=5, top_k=2, num_experts=4) == 3


def test_the_latest_tokens_of_a_full_expert_overflow() -> None:
    experts = np.array([0, 1, 0, 2, 0, 3, 0, 1])
    assert find_overflow(experts, num_experts=4, capacity=2).tolist() == [4, 6]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 8))
def test_no_expert_keeps_more_than_its_capacity(experts: list[int], capacity: int) -> None:
    flat = np.array(experts)
    kept = np.delete(flat, find_overflow(flat, 6, capacity))
    counts, kept_counts = np.bincount(flat, minlength=6), np.bincount(kept, minlength=6)
    assert (kept_counts == np.minimum(counts, capacity)).all()
