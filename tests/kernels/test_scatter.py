"""Sorting pairs by service against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import kernels

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels were not built")


@given(
    st.lists(st.integers(-1, 5), max_size=24),
    st.lists(st.integers(-1, 6), min_size=6, max_size=6),
    st.integers(1, 4),
)
def test_each_service_gets_its_pairs_in_order_and_their_rows_once(
    flat: list[int], owned: list[int], top_k: int
) -> None:
    experts, owners = np.array(flat[: len(flat) // top_k * top_k], dtype=np.int64), np.array(owned)
    scattered = kernels.scatter(experts, owners, top_k)
    services = np.where(experts >= 0, owners[experts], -2)
    assert [service for service, *_ in scattered.services] == sorted(
        set(services[services >= -1].tolist())
    )
    for service, first, num_pairs, num_rows, num_experts in scattered.services:
        pairs = slice(first, first + num_pairs)
        positions = np.flatnonzero(services == service)
        rows, pair_rows = np.unique(positions // top_k, return_inverse=True)
        assert np.array_equal(scattered.positions[pairs], positions)
        assert np.array_equal(scattered.rows[first : first + num_rows], rows)
        assert np.array_equal(scattered.pair_rows[pairs], pair_rows)
        assert np.array_equal(scattered.pair_experts[pairs], experts[positions])
        assert num_experts == len(set(experts[positions].tolist()))
    assert scattered.pair_rows.dtype == scattered.pair_experts.dtype == np.uint32


@pytest.mark.parametrize(
    ("experts", "owners", "top_k", "error"),
    [
        ([0, 2], [0, 1], 2, IndexError),
        ([0, 1], [0, -2], 2, IndexError),
        ([0, 1], [0, 1 << 40], 2, IndexError),
        ([0, 1], [0, 1], 0, ValueError),
        (np.array([0, 1], dtype=np.int32), [0, 1], 2, ValueError),
        (np.array([0.0, 1.0]), [0, 1], 2, ValueError),
        (np.array([0, 1, 0, 1])[::2], [0, 1], 2, ValueError),
    ],
    ids=[
        "no such expert",
        "no such owner",
        "far too many services",
        "no slots",
        "narrow",
        "fractions",
        "gaps",
    ],
)
def test_experts_and_owners_that_are_none_are_refused(
    experts: list[int] | np.ndarray, owners: list[int], top_k: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        kernels.scatter(np.asarray(experts), np.asarray(owners), top_k)
