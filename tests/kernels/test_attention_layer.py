"""A layer in one call gives the bits of the kernels that it is made of, and refuses what does not
fit.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from services import kernels
from services.kernels import AttentionLayer, AttentionWeights, CachedLayer, CachedRows, HeadNorms
from tests.kernels.numbers import DTYPES, random

HIDDEN, HEADS, KEY_HEADS, WIDTH, SLOTS = 40, 4, 2, 16, 96
SCALING = WIDTH**-0.5
# Three tokens with keys before them, and a row of padding.
FIRST_SLOTS, NUM_KEYS, WRITTEN = (0, 16, 64, 0), (7, 40, 1, 0), (6, 55, 64)


def weights(
    dtype: torch.dtype, *, norms: bool = False, spanning: bool = False, biases: bool = False
) -> AttentionWeights:
    num_joined = (HEADS + 2 * KEY_HEADS) * WIDTH
    widths = (HEADS * WIDTH, KEY_HEADS * WIDTH) if spanning else (WIDTH, WIDTH)
    return AttentionWeights(
        joined=random(num_joined, HIDDEN, dtype=dtype),
        joined_bias=random(num_joined, dtype=dtype, seed=1) if biases else None,
        out=random(HIDDEN, HEADS * WIDTH, dtype=dtype, seed=2),
        out_bias=random(HIDDEN, dtype=dtype, seed=3) if biases else None,
        norms=HeadNorms(
            random(widths[0], dtype=dtype, seed=4),
            random(widths[1], dtype=dtype, seed=5),
            1e-6,
            1e-3,
        )
        if norms
        else None,
        num_heads=HEADS,
        num_key_heads=KEY_HEADS,
    )


def rows(dtype: torch.dtype, written: tuple[int, ...] = WRITTEN) -> CachedRows:
    cosines, sines = random(2, 4, WIDTH, dtype=dtype, seed=6)
    return CachedRows(np.array(FIRST_SLOTS), np.array(NUM_KEYS), np.array(written), cosines, sines)


def cache(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = random(2, SLOTS, KEY_HEADS, WIDTH, dtype=dtype, seed=7)
    return keys, values


def by_parts(
    hidden: torch.Tensor,
    of: AttentionWeights,
    keys: torch.Tensor,
    values: torch.Tensor,
    window: int | None,
) -> torch.Tensor:
    product = kernels.linear(hidden, of.joined, of.joined_bias).view(len(hidden), -1, WIDTH)
    query, key, value = product.split([HEADS, KEY_HEADS, KEY_HEADS], dim=1)
    if of.norms is not None:
        query, key = query.contiguous(), key.contiguous()
        queries = query.view(-1, len(of.norms.query))
        query = kernels.rms_norm(queries, of.norms.query, of.norms.query_epsilon).view(query.shape)
        keys_ = key.view(-1, len(of.norms.key))
        key = kernels.rms_norm(keys_, of.norms.key, of.norms.key_epsilon).view(key.shape)
    cosines, sines = random(2, 4, WIDTH, dtype=hidden.dtype, seed=6)
    kernels.apply_rotary(query, cosines, sines)
    kernels.apply_rotary(key, cosines, sines)
    keys[list(WRITTEN)], values[list(WRITTEN)] = key[:3], value[:3]
    attended = kernels.attend(
        query, keys, values, np.array(FIRST_SLOTS), np.array(NUM_KEYS), SCALING, window
    )
    return kernels.linear(attended.view(len(hidden), -1), of.out, of.out_bias)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("norms", "spanning"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("window", [None, 5])
def test_a_layer_has_the_bits_of_its_parts(
    level: str, dtype: torch.dtype, norms: bool, spanning: bool, biases: bool, window: int | None
) -> None:
    of = weights(dtype, norms=norms, spanning=spanning, biases=biases)
    hidden = random(4, HIDDEN, dtype=dtype, seed=8)
    expected_cache, got_cache = cache(dtype), cache(dtype)
    expected = by_parts(hidden, of, *expected_cache, window)
    got = AttentionLayer(of, SCALING, window)(hidden[None], rows(dtype), CachedLayer(*got_cache))
    assert got.shape == (1, 4, HIDDEN)
    assert torch.equal(got[0], expected)
    assert torch.equal(got_cache[0], expected_cache[0])
    assert torch.equal(got_cache[1], expected_cache[1])


@pytest.mark.parametrize("written", [(6, 55, SLOTS), (6, 55, -1)])
def test_a_slot_beyond_the_cache_is_refused_before_anything_is_written(
    level: str, written: tuple[int, ...]
) -> None:
    keys, values = cache(torch.float32)
    layer, before = AttentionLayer(weights(torch.float32), SCALING), keys.clone()
    with pytest.raises(IndexError, match="below"):
        layer(torch.ones(4, HIDDEN), rows(torch.float32, written), CachedLayer(keys, values))
    with pytest.raises(IndexError, match="beyond the cache"):
        layer(torch.ones(4, HIDDEN), rows(torch.float32, (1,)), CachedLayer(keys[:40], values[:40]))
    assert torch.equal(keys, before)


@pytest.mark.parametrize(
    "hidden",
    [
        torch.ones(3, HIDDEN),
        torch.ones(4, HIDDEN + 1),
        torch.ones(4, HIDDEN).bfloat16(),
        torch.ones(HIDDEN, 4).T,
    ],
)
def test_hidden_states_of_another_kind_are_refused(level: str, hidden: torch.Tensor) -> None:
    layer = AttentionLayer(weights(torch.float32), SCALING)
    with pytest.raises(ValueError, match="hidden states"):
        layer(hidden, rows(torch.float32), CachedLayer(*cache(torch.float32)))


def test_a_cache_or_angles_of_another_kind_are_refused(level: str) -> None:
    layer, hidden = AttentionLayer(weights(torch.float32), SCALING), torch.ones(4, HIDDEN)
    with pytest.raises(ValueError, match="do not fit"):
        layer(hidden, rows(torch.float32), CachedLayer(*cache(torch.bfloat16)))
    with pytest.raises(ValueError, match="do not fit"):
        layer(hidden, rows(torch.bfloat16), CachedLayer(*cache(torch.float32)))
    keys, values = cache(torch.float32)
    with pytest.raises(ValueError, match="do not fit"):
        CachedLayer(keys, values[:-1])
    with pytest.raises(ValueError, match="without gaps"):
        CachedLayer(keys[:, :1], values[:, :1])
    with pytest.raises(ValueError, match="do not fit"):
        rows(torch.float32, (1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    "change",
    [
        {"out": torch.ones(HIDDEN, WIDTH)},
        {"joined_bias": torch.ones(3)},
        {"out_bias": torch.ones(HIDDEN).bfloat16()},
        {"norms": HeadNorms(torch.ones(WIDTH), torch.ones(WIDTH + 1), 1e-6, 1e-6)},
        {"joined": torch.ones(HIDDEN, (HEADS + 2 * KEY_HEADS) * WIDTH).T},
    ],
)
def test_weights_of_another_kind_are_refused(level: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fit|gaps"):
        AttentionLayer(replace(weights(torch.float32), **change), SCALING)
    with pytest.raises(ValueError, match="above 0"):
        AttentionLayer(weights(torch.float32), SCALING, window=0)
