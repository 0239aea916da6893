"""Attention over the cache against float64, sequence by sequence, and that a token's bits are its
own.
"""

import numpy as np
import pytest
import torch

from services import kernels
from tests.kernels.numbers import DTYPES, assert_close, random

NUM_SLOTS = 200
FIRST_SLOTS = np.array([0, 16, 16, 64, 190, 0])
NUM_KEYS = np.array([1, 37, 38, 130, 10, 17])
# heads, key heads, width, value width
SHAPES = [(6, 3, 32, 32), (4, 4, 20, 36), (10, 2, 64, 64), (7, 1, 9, 130)]

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def tensors(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensors:
    """Query, keys and values."""
    heads, key_heads, width, value_width = shape
    query = random(len(NUM_KEYS), heads, width, dtype=dtype)
    keys = random(NUM_SLOTS, key_heads, width, dtype=dtype, seed=1)
    return query, keys, random(NUM_SLOTS, key_heads, value_width, dtype=dtype, seed=2)


def exact(
    of: Tensors, scaling: float, window: int | None = None, sinks: torch.Tensor | None = None
) -> torch.Tensor:
    query, keys, values = (tensor.double() for tensor in of)
    group = query.shape[1] // keys.shape[1]
    results = []
    for token, (first, count) in enumerate(
        zip(FIRST_SLOTS.tolist(), NUM_KEYS.tolist(), strict=True)
    ):
        seen = slice(first + max(0, count - window) if window else first, first + count)
        own_keys, own_values = (
            t[seen].transpose(0, 1).repeat_interleave(group, 0) for t in (keys, values)
        )
        scores = (own_keys @ query[token, :, :, None])[..., 0] * scaling
        if sinks is not None:
            scores = torch.cat([scores, sinks.double()[:, None]], dim=1)
        weights = scores.softmax(dim=1)[:, : own_keys.shape[1]]
        results.append((weights[:, None] @ own_values)[:, 0])
    return torch.stack(results)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", [None, 1, 20, 1000])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_each_token_attends_to_its_own_keys(
    level: str,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    window: int | None,
    has_sinks: bool,
) -> None:
    of = tensors(shape, dtype)
    sinks = random(shape[0], dtype=dtype, seed=3) * 3 if has_sinks else None
    scaling = shape[2] ** -0.5
    got = kernels.attend(*of, FIRST_SLOTS, NUM_KEYS, scaling, window, sinks)
    assert_close(got, exact(of, scaling, window, sinks), units=8 if dtype is torch.float32 else 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_token_has_the_same_bits_alone_elsewhere_and_in_any_batch(
    level: str, dtype: torch.dtype, shape: tuple[int, int, int, int]
) -> None:
    query, keys, values = tensors(shape, dtype)
    together = kernels.attend(query, keys, values, FIRST_SLOTS, NUM_KEYS, 0.2)
    for token, (first, count) in enumerate(
        zip(FIRST_SLOTS.tolist(), NUM_KEYS.tolist(), strict=True)
    ):
        own_keys, own_values = (
            torch.cat([cache.new_ones(3, *cache.shape[1:]), cache[first : first + count]])
            for cache in (keys, values)
        )
        alone = kernels.attend(
            query[token : token + 1], own_keys, own_values, np.array([3]), np.array([count]), 0.2
        )
        assert torch.equal(alone[0], together[token])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (34, 2, 32, 32)], ids=str)
@pytest.mark.parametrize("window", [None, 30])
def test_a_prompt_s_tokens_have_the_bits_that_each_has_alone(
    level: str, dtype: torch.dtype, shape: tuple[int, int, int, int], window: int | None
) -> None:
    """Two prompts side by side, and a token that sees the keys of the first as well."""
    first_slots, num_keys = np.repeat([16, 100, 16], [23, 40, 1]), np.r_[1:24, 8:48, 23]
    heads, key_heads, width, value_width = shape
    query = random(len(num_keys), heads, width, dtype=dtype)
    keys = random(NUM_SLOTS, key_heads, width, dtype=dtype, seed=1)
    values = random(NUM_SLOTS, key_heads, value_width, dtype=dtype, seed=2)
    keys[[39, 147]], values[[39, 147]] = torch.inf, torch.nan  # past the prompts' ends
    together = kernels.attend(query, keys, values, first_slots, num_keys, 0.2, window)
    alone = [
        kernels.attend(
            query[token : token + 1],
            keys,
            values,
            first_slots[token : token + 1],
            num_keys[token : token + 1],
            0.2,
            window,
        )
        for token in range(len(num_keys))
    ]
    assert together.isfinite().all()
    assert torch.equal(together, torch.cat(alone))


def test_bfloat16_is_rounded_where_torch_s_fused_attention_rounds(level: str) -> None:
    # Weights 1 and e^-1: the second is rounded for its product with the value, not for the sum.
    keys = (
        torch.tensor([1.0, 0.0], dtype=torch.bfloat16)
        .reshape(2, 1, 1)
        .expand(2, 1, 32)
        .contiguous()
    )
    query = torch.zeros(1, 1, 32, dtype=torch.bfloat16)
    query[..., 0] = 1
    values = (
        torch.tensor([0.0, 256.0], dtype=torch.bfloat16)
        .reshape(2, 1, 1)
        .expand(2, 1, 32)
        .contiguous()
    )
    got = kernels.attend(query, keys, values, np.array([0]), np.array([2]), 1.0)
    power = torch.tensor(-1.0).exp()
    rounded = power.bfloat16().float() * 256 / (1 + power)
    assert torch.equal(got, rounded.bfloat16().expand_as(got))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_queries_may_be_slices_of_a_wider_product(level: str, dtype: torch.dtype) -> None:
    query, keys, values = tensors(SHAPES[0], dtype)
    fused = torch.cat([query, random(len(query), 6, 32, dtype=dtype)], dim=1)
    got = kernels.attend(fused[:, :6], keys, values, FIRST_SLOTS, NUM_KEYS, 0.2)
    assert torch.equal(got, kernels.attend(query, keys, values, FIRST_SLOTS, NUM_KEYS, 0.2))


def test_scores_far_apart_overflow_nothing(level: str) -> None:
    keys = torch.tensor([-300.0, 0.0, 300.0]).reshape(3, 1, 1)
    values = torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1)
    got = kernels.attend(torch.ones(1, 1, 1), keys, values, np.array([0]), np.array([3]), 10.0)
    assert got.item() == 4.0


def test_a_token_without_keys_gets_zeros(level: str) -> None:
    query, keys, values = tensors(SHAPES[0], torch.float32)
    got = kernels.attend(query[:2], keys, values, np.array([0, 0]), np.array([0, 4]), 0.2)
    assert torch.equal(got[0], torch.zeros(6, 32))
    assert got[1].abs().sum() > 0


@pytest.mark.parametrize(
    ("first_slot", "count"), [(199, 2), (-1, 2), (0, -1), (200, 1), (0, 1 << 40)]
)
def test_slots_that_are_not_there_are_refused(level: str, first_slot: int, count: int) -> None:
    query, keys, values = tensors(SHAPES[0], torch.float32)
    with pytest.raises(IndexError, match=r"beyond the cache|is below 0"):
        kernels.attend(query[:1], keys, values, np.array([first_slot]), np.array([count]), 0.2)


@pytest.mark.parametrize(
    "case", ["half", "mixed", "widths", "groups", "gaps", "device", "scaling", "window", "sinks"]
)
def test_what_it_does_not_take_is_refused(case: str) -> None:
    query, keys, values = tensors(SHAPES[0], torch.float32)
    index = np.zeros(len(query), np.int64)
    refused = {
        "half": (query.half(), keys.half(), values.half(), index, index, 1.0),
        "mixed": (query, keys.bfloat16(), values, index, index, 1.0),
        "widths": (query[..., :31], keys, values, index, index, 1.0),
        "groups": (query[:, :5], keys, values, index, index, 1.0),
        "gaps": (
            query,
            keys[:, :, ::2].repeat(1, 1, 2)[..., :32].mT.contiguous().mT,
            values,
            index,
            index,
            1.0,
        ),
        "device": (query.to("meta"), keys, values, index, index, 1.0),
        "scaling": (query, keys, values, index, index, 0.0),
        "window": (query, keys, values, index, index, 1.0, 0),
        "sinks": (query, keys, values, index, index, 1.0, None, torch.ones(5)),
    }[case]
    with pytest.raises(ValueError, match=r"fit|gaps|CPU|above 0"):
        kernels.attend(*refused)  # type: ignore[arg-type]


def test_prompts_of_a_dtype_that_it_does_not_take_are_torch_s(level: str) -> None:
    assert kernels.most_chunk_keys(torch.bfloat16) >= 0
    assert kernels.most_chunk_keys(torch.float16) == 0
