"""Sorting pairs by service against numpy, and rows copied behind a message's first bytes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services import kernels

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="the kernels were not built")


@given(
    st.lists(st.integers(-1, 5), max_size=24),
    st.lists(st.integers(-1, 6), min_size=6, max_size=6),
    st.integers(1, 4),
)
def test_each_service_gets_its_pairs_in_order_and_their_rows_once(flat: list[int], owned: list[int], top_k: int):
    experts, owners = np.array(flat[: len(flat) // top_k * top_k], dtype=np.int64), np.array(owned)
    scattered = kernels.scatter(experts, owners, top_k)
    services = np.where(experts >= 0, owners[experts], -2)
    assert [service for service, *_ in scattered.services] == sorted(set(services[services >= -1].tolist()))
    for service, first, num_pairs, num_rows in scattered.services:
        pairs = slice(first, first + num_pairs)
        positions = np.flatnonzero(services == service)
        rows, pair_rows = np.unique(positions // top_k, return_inverse=True)
        assert np.array_equal(scattered.positions[pairs], positions)
        assert np.array_equal(scattered.rows[first : first + num_rows], rows)
        assert np.array_equal(scattered.pair_rows[pairs], pair_rows)
        assert np.array_equal(scattered.pair_experts[pairs], experts[positions])
    assert (scattered.pair_rows.dtype, scattered.pair_experts.dtype) == (np.uint32, np.uint32)


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
    ids=["no such expert", "no such owner", "far too many services", "no slots", "narrow", "fractions", "gaps"],
)
def test_experts_and_owners_that_are_none_are_refused(
    experts: list[int] | np.ndarray, owners: list[int], top_k: int, error: type[Exception]
):
    with pytest.raises(error):
        kernels.scatter(np.asarray(experts), np.asarray(owners), top_k)


@given(
    st.integers(0, 5),
    st.integers(1, 9),
    st.lists(st.integers(0, 4), max_size=6) | st.none(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.booleans(),
    st.binary(max_size=9),
    st.binary(max_size=9),
)
def test_rows_are_copied_between_prefix_and_suffix(
    num_rows: int,
    width: int,
    wanted: list[int] | None,
    dtype: torch.dtype,
    has_gaps: bool,
    prefix: bytes,
    suffix: bytes,
):
    rows = torch.randn(num_rows, 2 * width).to(dtype)[:, : width if has_gaps else 2 * width]
    indices = None if wanted is None else np.array([index for index in wanted if index < num_rows], dtype=np.int64)
    chosen = rows if indices is None else rows[torch.from_numpy(indices)]
    expected = prefix + chosen.contiguous().view(torch.uint8).numpy().tobytes() + suffix
    assert kernels.joined(prefix, rows, indices, suffix) == expected


@pytest.mark.parametrize(
    ("rows", "indices", "error"),
    [
        (torch.ones(2, 4).t(), None, ValueError),
        (torch.ones(2, 4, device="meta"), None, ValueError),
        (torch.ones(2, 4), np.array([2]), IndexError),
        (torch.ones(2, 4), np.array([-1]), IndexError),
        (torch.ones(2, 4), np.array([0], dtype=np.int32), ValueError),
    ],
    ids=["steps", "device", "beyond", "negative", "narrow"],
)
def test_rows_of_another_kind_or_that_are_not_there_are_refused(
    rows: torch.Tensor, indices: np.ndarray | None, error: type[Exception]
):
    with pytest.raises(error):
        kernels.joined(b"", rows, indices)
