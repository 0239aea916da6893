"""Errors of tokens and logits are found where there are some, and nowhere else."""

from typing import Any

import pytest
import torch

from bench.layer import tokens as layer_tokens
from bench.layer.tokens import Generator
from services.model.checkpoint import Checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL


class Zeros:
    """Stands for a dispatcher: experts that make nothing, but for one value that it is given."""

    def __init__(self, value: float = 0.0) -> None:
        self._value = value

    async def compute(
        self, _step: object, _layer: int, hidden: torch.Tensor, *_: object
    ) -> torch.Tensor:
        output = torch.zeros_like(hidden)
        output[:, 0] = self._value
        return output


@pytest.fixture
def generator() -> Any:
    with torch.no_grad():
        yield Generator(Checkpoint.open(EMBEDDED_MODEL), torch.float32, num_tokens=3)


async def test_a_generation_has_no_errors_against_itself_and_some_against_another(
    generator: Any,
) -> None:
    exact = await generator.generate(Zeros())
    assert exact.tokens.shape == (layer_tokens.NUM_PROMPTS, 3)
    same = await generator.errors(Zeros(), exact)
    assert (
        same.share_free,
        same.num_continuations,
        same.share_forced,
        same.largest_logit_difference,
    ) == (0, 0, 0, 0)
    other = await generator.errors(Zeros(50.0), exact)
    assert other.share_free > 0
    assert 0 < other.num_continuations <= layer_tokens.NUM_PROMPTS
    assert other.share_forced > 0
    assert other.largest_logit_difference > 1e-3


async def test_a_given_text_is_read_whatever_is_the_likeliest(generator: Any) -> None:
    text = torch.full((layer_tokens.NUM_PROMPTS, 3), 17)
    forced, free = await generator.generate(Zeros(), text), await generator.generate(Zeros())
    assert torch.equal(forced.logits[:, 0], free.logits[:, 0])
    assert not torch.equal(forced.logits[:, 1], free.logits[:, 1])
