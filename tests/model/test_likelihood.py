"""How likely tokens are is what a softmax over the whole row says, the likeliest first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.model.likelihood import likelihood


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 5, 64, 65, 700, 4096]),
    st.sampled_from([0.0, 1.0, 20.0]),
    st.integers(0, 20),
    st.booleans(),
)
def test_likelihoods_are_those_of_a_softmax(
    seed: int, size: int, spread: float, num_top: int, with_ties: bool
) -> None:
    row = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread
    row = row.bfloat16().float() if with_ties else row
    found = likelihood(row, seed % size, num_top)
    expected = torch.log_softmax(row.double(), -1)
    order = torch.sort(row, descending=True, stable=True).indices[:num_top].tolist()
    assert found.token == seed % size
    assert found.logprob == pytest.approx(float(expected[seed % size]), abs=1e-5)
    assert [token for token, _ in found.top] == order
    assert [each for _, each in found.top] == pytest.approx(expected[order].tolist(), abs=1e-5)


def test_large_logits_do_not_overflow() -> None:
    assert likelihood(torch.tensor([3e38, 3e38, -3e38]), 0, 0).logprob == pytest.approx(-0.6931472)
