"""How long a router warms up: as long as a step of the full size is cheap."""

import math

import pytest
import torch

from services.router.engine.step import Step
from services.router.engine.warm_up import warm_up
from services.wire.errors import ServingError
from tests.router.scripted_engine import VOCAB, ScriptedTrunk, engine

SHORT, FULL = 4, 8


@pytest.mark.parametrize(
    ("full_chunk_seconds", "sizes", "num_short"),
    [(math.inf, {1, SHORT, FULL}, 2), (0.0, {1, SHORT}, 1)],
)
async def test_a_full_chunk_and_what_tells_its_time_are_computed_where_that_does_not_take_long(
    full_chunk_seconds: float, sizes: set[int], num_short: int
) -> None:
    seen: list[int] = []

    def note(step: Step) -> torch.Tensor:
        seen.append(step.num_tokens)
        return torch.eye(VOCAB)[: len(step.drawing)]

    async with engine(ScriptedTrunk(note)) as running:
        await warm_up(
            running,
            VOCAB,
            FULL,
            max_context=64,
            short_tokens=SHORT,
            full_chunk_seconds=full_chunk_seconds,
        )
    assert set(seen) == sizes
    assert seen.count(SHORT) == num_short


async def test_a_failing_step_ends_the_warm_up() -> None:
    def fail(_: Step) -> torch.Tensor:
        raise RuntimeError("no kernel for this")

    async with engine(ScriptedTrunk(fail)) as running:
        with pytest.raises(ServingError, match="a step of the router failed"):
            await warm_up(running, VOCAB, FULL, max_context=64)
