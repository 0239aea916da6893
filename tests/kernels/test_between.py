"""All between the experts of two layers gives the bits of the kernels that it is made of, and
refuses what does not fit.
"""

from typing import Any

import pytest
import torch

from services import kernels
from services.kernels import AttentionLayer, Between, CachedLayer, Choice, Gate, Norm
from tests.kernels.numbers import DTYPES, random
from tests.kernels.test_attention_layer import HIDDEN, SCALING, cache, rows, weights

NUM_ROWS, EXPERTS, CHOSEN = 4, 24, 3


def gate(dtype: torch.dtype, *, bias: bool = False) -> Gate:
    of = random(EXPERTS, HIDDEN, dtype=dtype, seed=11)
    added = random(EXPERTS, dtype=dtype, seed=12) if bias else None
    return Gate(of, added, Choice(CHOSEN, True, True, dtype))


def norm(dtype: torch.dtype, seed: int) -> Norm:
    return Norm(random(HIDDEN, dtype=dtype, seed=seed), 1e-6 * seed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_it_has_the_bits_of_its_parts(
    level: str, dtype: torch.dtype, is_first: bool, bias: bool
) -> None:
    attention, choose = AttentionLayer(weights(dtype, norms=True), SCALING), gate(dtype, bias=bias)
    before, after = norm(dtype, 13), norm(dtype, 14)
    hidden, arrived = random(2, NUM_ROWS, HIDDEN, dtype=dtype, seed=15)
    expected_cache, got_cache = cache(dtype), cache(dtype)
    expected = hidden.clone() if is_first else hidden + arrived
    entering = kernels.rms_norm(expected, *before)
    expected = expected + attention(entering, rows(dtype), CachedLayer(*expected_cache))
    normed = kernels.rms_norm(expected, *after)
    _, shares, indices = choose(normed)

    between = Between(before, attention, after, choose)
    got = between(hidden, None if is_first else arrived, rows(dtype), CachedLayer(*got_cache))
    assert torch.equal(hidden, expected)
    assert torch.equal(got.normed, normed)
    assert torch.equal(got.weights, shares)
    assert torch.equal(got.indices, indices)
    assert got.gate_nanos > 0
    assert torch.equal(got_cache[0], expected_cache[0])
    assert torch.equal(got_cache[1], expected_cache[1])

    without = Between(before, attention, after, None)
    hidden, arrived = random(2, NUM_ROWS, HIDDEN, dtype=dtype, seed=15)
    got = without(hidden, None if is_first else arrived, rows(dtype), CachedLayer(*got_cache))
    assert torch.equal(got.normed, normed)
    assert (got.gate_nanos, got.weights.shape) == (0, (NUM_ROWS, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"before": Norm(torch.ones(HIDDEN + 1), 1e-6)},
        {"after": Norm(torch.ones(HIDDEN).bfloat16(), 1e-6)},
        {"after": Norm(torch.ones(2 * HIDDEN)[::2], 1e-6)},
        {"gate": gate(torch.bfloat16)},
        {"gate": Gate(torch.ones(EXPERTS, HIDDEN + 1), None, gate(torch.float32).choice)},
    ],
)
def test_parts_that_do_not_fit_together_are_refused(level: str, change: dict[str, Any]) -> None:
    parts: dict[str, Any] = {
        "before": norm(torch.float32, 13),
        "attention": AttentionLayer(weights(torch.float32), SCALING),
        "after": norm(torch.float32, 14),
        "gate": gate(torch.float32),
    }
    with pytest.raises(ValueError, match="does not fit"):
        Between(**parts | change)


@pytest.mark.parametrize(
    "arrived",
    [
        torch.ones(3, HIDDEN),
        torch.ones(NUM_ROWS, HIDDEN).bfloat16(),
        torch.ones(HIDDEN, NUM_ROWS).T,
    ],
)
def test_experts_rows_of_another_kind_are_refused(level: str, arrived: torch.Tensor) -> None:
    dtype = torch.float32
    attention = AttentionLayer(weights(dtype), SCALING)
    between = Between(norm(dtype, 13), attention, norm(dtype, 14), gate(dtype))
    hidden = torch.ones(NUM_ROWS, HIDDEN)
    with pytest.raises(ValueError, match="hidden states"):
        between(hidden, arrived, rows(dtype), CachedLayer(*cache(dtype)))
    assert torch.equal(hidden, torch.ones(NUM_ROWS, HIDDEN))
