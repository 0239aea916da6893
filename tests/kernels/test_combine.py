"""Weighted sums of rows that lie in replies, against torch's product and sum to the bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services import kernels
from services.wire.row_bytes import rows_of
from tests.kernels.numbers import DTYPES, random

Replies = list[tuple[memoryview, np.ndarray]]
DTYPE = st.sampled_from(DTYPES)


def bytes_of(rows: torch.Tensor, gap: int = 0) -> memoryview:
    """The rows' bytes, so many bytes beyond some address."""
    return memoryview(bytes(gap) + rows.contiguous().view(torch.uint8).numpy().tobytes())[gap:]


def replies_of(rows: torch.Tensor, owners: np.ndarray, seed: int) -> Replies:
    """The rows [pairs, width] as those that own them reply, in any order; those of -1
    are missing.
    """
    services = np.random.default_rng(seed).permutation(np.unique(owners[owners >= 0]))
    parts = [np.flatnonzero(owners == service) for service in services]
    return [(bytes_of(rows[torch.from_numpy(part)], gap), part) for gap, part in enumerate(parts)]


def combined_by_torch(
    rows: torch.Tensor, weights: torch.Tensor, out_dtype: torch.dtype
) -> torch.Tensor:
    weighted = rows.view(*weights.shape, rows.shape[1]) * weights[..., None]
    return (weighted.sum(1) if weights.shape[1] > 1 else weighted[:, 0]).to(out_dtype)


def same_bits(got: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether all bits agree, those of zeros and of what is not a number included."""
    return got.dtype is expected.dtype and torch.equal(
        got.view(torch.uint8), expected.contiguous().view(torch.uint8)
    )


@pytest.mark.usefixtures("level_of_examples")
@given(
    num_tokens=st.integers(0, 6),
    slots_and_width=st.one_of(
        st.tuples(st.integers(1, 4), st.integers(1, 70)),
        st.tuples(st.integers(1, 16), st.sampled_from([32, 64, 192])),
    ),
    dtypes=st.tuples(DTYPE, DTYPE, DTYPE),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_are_torch_s_to_the_bit_whatever_lies_where_and_what_is_missing(
    num_tokens: int, slots_and_width: tuple[int, int], dtypes: tuple[torch.dtype, ...], seed: int
) -> None:
    (top_k, width), (dtype, weights_dtype, out_dtype) = slots_and_width, dtypes
    rows = random(num_tokens * top_k, width, dtype=dtype, seed=seed)
    weights = random(num_tokens, top_k, dtype=weights_dtype, seed=seed + 1)
    owners = np.random.default_rng(seed).integers(-1, 4, num_tokens * top_k)
    rows[torch.from_numpy(owners < 0)] = 0
    assert kernels.combines(dtype, weights, width, out_dtype)
    got, finite = kernels.combine(replies_of(rows, owners, seed), weights, width, dtype, out_dtype)
    assert same_bits(got, combined_by_torch(rows, weights, out_dtype))
    assert finite


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zeros_infinities_and_subnormals_are_summed_as_torch_does(
    level: str, dtype: torch.dtype, top_k: int
) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    special = torch.tensor(
        [0.0, -0.0, tiny / 2, -tiny / 2, torch.finfo(dtype).max, float("inf")], dtype=dtype
    )
    rows = torch.cartesian_prod(*[special] * 4).reshape(-1, 4)
    rows = rows[: len(rows) // top_k * top_k]
    weights = torch.tensor([[0.5, -1.0]], dtype=dtype).expand(len(rows) // top_k, 2)[:, :top_k]
    got, finite = kernels.combine(
        [(bytes_of(rows), np.arange(len(rows)))], weights, 4, dtype, dtype
    )
    expected = combined_by_torch(rows, weights, dtype)
    assert not finite
    assert torch.equal(got.isnan(), expected.isnan())
    assert same_bits(got.nan_to_num(7), expected.nan_to_num(7))


def test_a_weight_that_is_no_number_spoils_its_own_token_alone(level: str) -> None:
    weights = torch.tensor([[1.0, float("nan")], [1.0, 1.0]])
    rows = torch.ones(2, 3)
    got, finite = kernels.combine(
        [(bytes_of(rows), np.array([0, 2]))], weights, 3, torch.float32, torch.float32
    )
    assert got[0].isnan().all()
    assert got[1].tolist() == [1.0, 1.0, 1.0]
    assert not finite


@given(
    st.sampled_from(DTYPES),
    st.sampled_from([math.nan, math.inf, -math.inf, 1.0]),
    st.integers(1, 40),
    st.data(),
)
def test_one_number_that_is_not_finite_is_told_wherever_it_stands(
    dtype: torch.dtype, number: float, width: int, data: st.DataObject
) -> None:
    rows, weights = torch.ones(6, width, dtype=dtype), torch.ones(3, 2, dtype=dtype)
    rows[data.draw(st.integers(0, 5)), data.draw(st.integers(0, width - 1))] = number
    _, finite = kernels.combine([(bytes_of(rows), np.arange(6))], weights, width, dtype, dtype)
    assert finite == math.isfinite(number)


def test_a_long_sum_lets_rows_be_read_while_other_threads_run(level: str) -> None:
    rows, weights = random(128 * 8, 2048, dtype=torch.bfloat16), random(128, 8, dtype=torch.float32)
    got, finite = kernels.combine(
        [(bytes_of(rows), np.arange(1024))], weights, 2048, torch.bfloat16, torch.bfloat16
    )
    assert finite and same_bits(got, combined_by_torch(rows, weights, torch.bfloat16))


@pytest.mark.parametrize(
    ("dtype", "weights", "width", "out_dtype"),
    [
        (torch.float16, torch.ones(2, 2), 8, torch.float32),
        (torch.float32, torch.ones(2, 2).half(), 8, torch.float32),
        (torch.float32, torch.ones(2, 2), 8, torch.float16),
        (torch.float32, torch.ones(2, 2, device="meta"), 8, torch.float32),
        (torch.float32, torch.ones(2, 0), 8, torch.float32),
        (torch.float32, torch.ones(2, 5), 33, torch.float32),
        (torch.float32, torch.ones(2, 17), 32, torch.float32),
        (torch.float32, torch.ones(2, 2), 0, torch.float32),
    ],
    ids=[
        "half rows",
        "half weights",
        "half sums",
        "device",
        "no slots",
        "odd width",
        "many slots",
        "no width",
    ],
)
def test_what_torch_sums_in_another_way_is_refused(
    dtype: torch.dtype, weights: torch.Tensor, width: int, out_dtype: torch.dtype
) -> None:
    assert not kernels.combines(dtype, weights, width, out_dtype)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.combine([], weights, width, dtype, out_dtype)


@pytest.mark.parametrize(
    ("num_bytes", "positions", "error"),
    [
        (32, [0], ValueError),
        (16, [0, 1], ValueError),
        (17, [0], ValueError),
        (16, [4], IndexError),
        (16, [-1], IndexError),
        (16, np.array([0], dtype=np.int32), ValueError),
    ],
    ids=["fewer positions", "more positions", "part of a row", "beyond", "negative", "narrow"],
)
def test_rows_that_do_not_fit_their_positions_are_refused(
    level: str, num_bytes: int, positions: list[int] | np.ndarray, error: type[Exception]
) -> None:
    reply = (memoryview(bytes(num_bytes)), np.asarray(positions))
    with pytest.raises(error):
        kernels.combine([reply], torch.ones(2, 2), 4, torch.float32, torch.float32)


def test_sums_are_those_of_rows_as_the_wire_hands_them_out(level: str) -> None:
    rows, weights = random(6, 37, dtype=torch.bfloat16), random(3, 2, dtype=torch.bfloat16)
    data = bytes_of(rows, gap=1)
    assert torch.equal(rows_of(data, torch.bfloat16, 37), rows)
    got, finite = kernels.combine(
        [(data, np.arange(6))], weights, 37, torch.bfloat16, torch.bfloat16
    )
    assert finite and same_bits(got, combined_by_torch(rows, weights, torch.bfloat16))
