"""Runs variants in turn, A B A B …, so that a machine that changes its mood changes it for all of
them.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

Sample = TypeVar("Sample")
Variants = Mapping[str, Callable[[], Awaitable[Sample]]]


async def interleaved(
    variants: Variants[Sample],
    num_rounds: int,
    *,
    after_round: Callable[[], None],
    num_warm_ups: int = 1,
) -> dict[str, list[Sample]]:
    """Samples of each variant, one for each round, in the order of rounds; warm-ups are run and
    forgotten.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    for number in range(num_warm_ups + num_rounds):
        for name, run in variants.items():
            sample = await run()
            if number >= num_warm_ups:
                samples[name].append(sample)
        after_round()
    return samples
