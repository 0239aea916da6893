"""The truth about what is hosted, without a service around it."""

import asyncio
import math
import time

import pytest

from services.expert.hosting import ExpertState, Hosting, HostingSnapshot
from services.wire.errors import BadState, Outdated, Overloaded
from services.wire.expert_key import ExpertKey

A, B, C = ExpertKey(0, 1), ExpertKey(0, 2), ExpertKey(3, 0)


def states(hosting: Hosting) -> dict[ExpertKey, ExpertState]:
    return {key: hosted.state for key, hosted in hosting.snapshot().experts}


def ready(hosting: Hosting, *keys: ExpertKey) -> None:
    hosting.begin_loading(keys, hosting.generation)
    hosting.finish_loading(dict.fromkeys(keys, b"hash"))


def test_an_expert_goes_through_its_states_and_each_change_is_a_generation() -> None:
    hosting = Hosting(2)
    assert hosting.begin_loading([B, A, B], 1) == {B: 0, A: 1}
    assert (hosting.generation, hosting.num_free, states(hosting)) == (
        2,
        0,
        {A: ExpertState.LOADING, B: ExpertState.LOADING},
    )
    hosting.finish_loading({A: b"a", B: b"b"})
    assert (hosting.generation, states(hosting)) == (
        3,
        {A: ExpertState.READY, B: ExpertState.READY},
    )
    assert dict(hosting.snapshot().experts)[A].content_hash == b"a"
    assert hosting.begin_retiring([A, C], 3) == [A]
    assert (hosting.generation, states(hosting)) == (
        4,
        {A: ExpertState.RETIRING, B: ExpertState.READY},
    )
    hosting.remove([A])
    assert (hosting.generation, hosting.num_free, states(hosting)) == (5, 1, {B: ExpertState.READY})


def test_a_change_that_changes_nothing_is_no_generation() -> None:
    hosting = Hosting(2)
    ready(hosting, A)
    before = hosting.generation
    assert hosting.begin_loading([A], before) == {}
    hosting.finish_loading({})
    assert hosting.begin_retiring([B], before) == []
    assert hosting.generation == before


def test_who_planned_with_another_generation_loses() -> None:
    hosting = Hosting(2)
    hosting.begin_loading([A], 1)
    for change in (hosting.begin_loading, hosting.begin_retiring):
        with pytest.raises(Outdated, match="expected_generation is 1; the hosting's is 2"):
            change([B], 1)


@pytest.mark.parametrize("expected", [0, 99])
def test_a_generation_that_never_was_loses(expected: int) -> None:
    with pytest.raises(Outdated):
        Hosting(1).begin_loading([A], expected)


def test_an_expert_on_its_way_is_left_alone() -> None:
    hosting = Hosting(2)
    hosting.begin_loading([A], 1)
    for change in (hosting.begin_loading, hosting.begin_retiring):
        with pytest.raises(Outdated, match="expert 1 of layer 0 is loading"):
            change([A], 2)
    hosting.finish_loading({A: b""})
    hosting.begin_retiring([A], 3)
    with pytest.raises(Outdated, match="expert 1 of layer 0 is retiring"):
        hosting.begin_loading([A], 4)
    assert hosting.begin_retiring([A], 4) == []


def test_what_does_not_fit_changes_nothing() -> None:
    hosting = Hosting(2)
    ready(hosting, A)
    before = hosting.snapshot()
    with pytest.raises(
        Overloaded,
        match="experts has 2 that are not hosted; expert_memory has room for 1 more of 2",
    ):
        hosting.begin_loading([A, B, C], before.generation)
    assert hosting.snapshot() == before
    assert len(hosting.begin_loading([A, B], before.generation)) == 1


def test_a_slot_belongs_to_one_expert_at_a_time() -> None:
    hosting = Hosting(3)
    ready(hosting, A, B, C)
    assert {hosted.slot for _, hosted in hosting.snapshot().experts} == {0, 1, 2}
    slot = dict(hosting.snapshot().experts)[B].slot
    hosting.begin_retiring([B], hosting.generation)
    hosting.remove([B])
    assert hosting.begin_loading([ExpertKey(7, 7)], hosting.generation) == {ExpertKey(7, 7): slot}


def test_of_two_operations_that_rely_on_each_other_s_replica_both_are_refused() -> None:
    here, there = Hosting(1), Hosting(1)
    for hosting in (here, there):
        ready(hosting, A)
    here.hold([A], "to here", math.inf)
    there.hold([A], "to there", math.inf)
    for hosting, operation, holder in (
        (there, "to here", "to there"),
        (here, "to there", "to here"),
    ):
        with pytest.raises(Outdated, match=f"expert 1 of layer 0 is held by operation '{holder}'"):
            hosting.begin_retiring([A], hosting.generation, operation)
        assert states(hosting) == {A: ExpertState.READY}


def test_a_refused_retirement_retires_none() -> None:
    hosting = Hosting(2)
    ready(hosting, A, B)
    hosting.hold([B], "move", math.inf)
    before = hosting.snapshot()
    with pytest.raises(Outdated, match="held by operation 'move'"):
        hosting.begin_retiring([A, B], before.generation)
    assert hosting.snapshot() == before


def test_a_hold_is_no_bar_to_its_own_operation_unless_another_holds_too() -> None:
    hosting = Hosting(2)
    ready(hosting, A, B)
    hosting.hold([A, B], "first", math.inf)
    hosting.hold([B], "second", math.inf)
    assert hosting.begin_retiring([A], hosting.generation, "first") == [A]
    with pytest.raises(Outdated, match="held by operation 'second'"):
        hosting.begin_retiring([B], hosting.generation, "first")
    hosting.hold([B], "second", time.monotonic())
    assert hosting.begin_retiring([B], hosting.generation, "first") == [B]


def test_a_hold_ends_when_its_time_is_up_and_with_its_expert() -> None:
    hosting = Hosting(2)
    ready(hosting, A)
    hosting.hold([A, B], "move", math.inf)
    hosting.hold([A], "move", time.monotonic())
    assert hosting.begin_retiring([A], hosting.generation) == [A]
    hosting.hold([A], "move", math.inf)
    hosting.remove([A])
    ready(hosting, A, B)
    assert hosting.begin_retiring([A, B], hosting.generation) == [A, B]


def test_a_draining_service_takes_no_expert_and_keeps_those_it_has() -> None:
    hosting = Hosting(2)
    ready(hosting, A)
    before = hosting.generation
    hosting.drain()
    assert (hosting.generation, hosting.snapshot().is_draining) == (before + 1, True)
    with pytest.raises(BadState, match="the service is draining"):
        hosting.begin_loading([A, B], hosting.generation)
    assert hosting.begin_loading([A], hosting.generation) == {}
    assert states(hosting) == {A: ExpertState.READY}


async def test_a_slow_watcher_gets_the_newest_only() -> None:
    hosting = Hosting(3)
    watch = hosting.watch()
    assert (await anext(watch)).generation == 1
    ready(hosting, A)
    ready(hosting, B)
    snapshot = await anext(watch)
    assert (snapshot.generation, snapshot.num_free, len(snapshot.experts)) == (5, 1, 2)


async def test_every_watcher_is_told_and_all_end_with_the_hosting() -> None:
    hosting = Hosting(3)

    async def seen() -> list[HostingSnapshot]:
        return [snapshot async for snapshot in hosting.watch()]

    watchers = [asyncio.create_task(seen()) for _ in range(3)]
    await asyncio.sleep(0)
    ready(hosting, A)
    await asyncio.sleep(0)
    hosting.close()
    for watcher in watchers:
        assert [snapshot.generation for snapshot in await watcher] == [1, 3]


async def test_the_last_change_is_seen_before_a_watch_ends() -> None:
    hosting = Hosting(1)
    ready(hosting, A)
    watch = hosting.watch()
    await anext(watch)
    hosting.remove([A])
    hosting.close()
    assert [snapshot.experts async for snapshot in watch] == [()]


async def test_who_hosts_nothing_or_is_watched_by_nobody_is_evacuated_at_once() -> None:
    empty = Hosting(1)
    watch = empty.watch()
    await anext(watch)
    await empty.wait_until_evacuated()
    unwatched = Hosting(1)
    ready(unwatched, A)
    await unwatched.wait_until_evacuated()


@pytest.mark.parametrize("ending", ["unloaded", "unwatched"])
async def test_evacuation_ends_with_the_last_expert_or_the_last_watcher(ending: str) -> None:
    hosting = Hosting(2)
    ready(hosting, A, B)
    watches = [hosting.watch(), hosting.watch()]
    for watch in watches:
        await anext(watch)
    evacuated = asyncio.create_task(hosting.wait_until_evacuated())
    for key, watch in zip((A, B), watches, strict=True):
        await asyncio.sleep(0)
        assert not evacuated.done()
        if ending == "unloaded":
            hosting.remove([key])
        else:
            await watch.aclose()
    await evacuated
