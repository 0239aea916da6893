"""Variants take turns."""

from collections.abc import Awaitable, Callable

from bench.harness.rounds import interleaved


async def test_variants_run_in_turn_and_warm_ups_are_forgotten() -> None:
    order: list[str] = []
    rounds: list[int] = []

    def variant(name: str) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            order.append(name)
            return len(order)

        return run

    samples = await interleaved(
        {"a": variant("a"), "b": variant("b")},
        2,
        after_round=lambda: rounds.append(len(order)),
        num_warm_ups=1,
    )
    assert order == ["a", "b"] * 3
    assert samples == {"a": [3, 5], "b": [4, 6]}
    assert rounds == [2, 4, 6]
