"""Services that are not there are looked for, and take little time of those that are."""

import asyncio

import pytest

from services.router.peers.absence import Attempts, Past, pause_seconds

# So few that none is added while a test runs.
SELDOM = 1e-6


def test_a_service_is_looked_for_less_often_the_longer_it_is_away() -> None:
    assert pause_seconds(0.0) == pause_seconds(1.0) == 0.2
    assert pause_seconds(20.0) == 2.0
    assert pause_seconds(3600.0) == 5.0


class Tried:
    """Addresses that wait for their turn, and the order in which they have had it."""

    def __init__(self, attempts: Attempts) -> None:
        self.names: list[str] = []
        self._attempts = attempts
        self._waiting: dict[str, asyncio.Task[None]] = {}

    async def wait(self, past: Past, *names: str) -> None:
        for name in names:
            self._waiting[name] = asyncio.create_task(self._try(past, name))
        await asyncio.sleep(0)

    async def reach(self, count: int = 1) -> None:
        for _ in range(count):
            self._attempts.give_back()
            await asyncio.sleep(0)

    async def cancel(self, *names: str) -> None:
        for name in names:
            self._waiting[name].cancel()
            await asyncio.gather(self._waiting[name], return_exceptions=True)

    async def _try(self, past: Past, name: str) -> None:
        await self._attempts.turn(past)
        self.names.append(name)


async def test_so_many_are_tried_at_once_and_another_one_when_one_of_them_is_reached() -> None:
    tried = Tried(Attempts(SELDOM, at_once=2))
    await tried.wait(Past.NEW, "a", "b", "c", "d")
    await asyncio.sleep(0)
    assert tried.names == ["a", "b"]
    await tried.reach()
    assert tried.names == ["a", "b", "d"]
    await tried.cancel("c")


async def test_who_was_reached_before_has_every_other_turn_and_the_rest_begins_with_the_new() -> (
    None
):
    tried = Tried(Attempts(SELDOM, at_once=1))
    await tried.wait(Past.IN_VAIN, "v0", "v1", "v2", "v3")
    await tried.wait(Past.NEW, "n0", "n1")
    await tried.wait(Past.REACHED, "r0", "r1", "r2")
    await tried.reach(8)
    assert tried.names == ["v0", "r0", "n1", "r1", "n0", "r2", "v1", "v2", "v3"]


async def test_one_that_is_forgotten_while_it_waits_takes_no_turn() -> None:
    tried = Tried(Attempts(SELDOM, at_once=1))
    await tried.wait(Past.NEW, "a", "b", "c")
    await tried.cancel("b")
    await tried.reach()
    assert tried.names == ["a", "c"]


@pytest.mark.parametrize("at_once", [1, 3])
async def test_turns_come_back_by_themselves(at_once: int) -> None:
    tried = Tried(Attempts(1000.0, at_once=at_once))
    await tried.wait(Past.IN_VAIN, *"abcdefgh")
    async with asyncio.timeout(10):
        while len(tried.names) < 8:  # noqa: ASYNC110 -- turns come with time alone
            await asyncio.sleep(0.001)
    assert tried.names == [*"abcdefgh"]
