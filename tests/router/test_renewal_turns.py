"""Of services that are connected to anew no two are away at once."""

import asyncio

from services.router.peers.renewal_turns import RenewalTurns


async def test_the_next_one_has_its_turn_when_the_one_before_is_back() -> None:
    turns, order = RenewalTurns(60.0), []

    async def renew(name: str, may_come_back: asyncio.Event) -> None:
        turn = await turns.next()
        turn.come_back()  # still used
        order.append(f"{name} goes")
        turn.go_away()
        await may_come_back.wait()
        order.append(f"{name} is back")
        turn.come_back()

    may_come_back = [asyncio.Event() for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        for name, event in zip("abc", may_come_back, strict=True):
            tasks.create_task(renew(name, event))
        for event in reversed(may_come_back):
            await asyncio.sleep(0)  # in which whoever has a turn takes it
            event.set()
    assert order == ["a goes", "a is back", "b goes", "b is back", "c goes", "c is back"]


async def test_one_that_does_not_come_back_is_not_waited_for_without_end() -> None:
    turns = RenewalTurns(0.01)
    first = await turns.next()
    async with asyncio.timeout(10):
        await turns.next()
    assert not first.is_over.is_set()
