"""Moves are make-before-break within memory, whatever is lost on the way and whoever else moves the
same experts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.expert.bank import Bank
from services.expert.hosting import ExpertState
from services.expert.loading import Library, LoadingProgress, OnLoading
from services.model.checkpoint import Checkpoint
from services.router.hosting.mover import EASY_BYTES_PER_SECOND, EASY_REST, rest_seconds
from services.router.hosting.operations import OperationFailed, Phase
from services.router.hosting.waits import Waits
from services.router.planning.goals import Even, Goal, Stated, Without
from services.wire.errors import (
    BadState,
    InvalidRequest,
    NotFound,
    Outdated,
    Overloaded,
    ServingError,
)
from services.wire.expert_key import ExpertKey
from tests.router.hosting.local_fleet import Keys, LocalExperts, running_fleet, several

EVERY: Keys = frozenset(ExpertKey(layer, expert) for layer in range(3) for expert in range(8))


def half(parity: int) -> Keys:
    """Every other expert of each layer."""
    return frozenset(ExpertKey(layer, expert) for layer, expert in EVERY if expert % 2 == parity)


def loads_tell(monkeypatch: pytest.MonkeyPatch, *, are_held: bool = False) -> asyncio.Event:
    """Set once a service has begun to load experts; with `are_held` it gets no further."""
    begun, load = asyncio.Event(), Library.load

    async def telling(
        library: Library,
        keys: Sequence[ExpertKey],
        expected_generation: int,
        report: OnLoading,
        *rest: Any,
        **options: Any,
    ) -> None:
        async def tell(progress: LoadingProgress) -> None:
            begun.set()
            if are_held:
                await asyncio.Event().wait()
            await report(progress)

        await load(library, keys, expected_generation, tell, *rest, **options)

    monkeypatch.setattr(Library, "load", telling)
    return begun


@asynccontextmanager
async def watched(experts: LocalExperts) -> AsyncIterator[list[str]]:
    """Look at every change of what the services host; collects experts that are ready nowhere."""
    lost: list[str] = []

    async def watch(address: str) -> None:
        async for _ in experts.parts[address].hosting.watch():
            missing = EVERY.difference(
                set().union(*[experts.hosted(known) for known in experts.parts])
            )
            lost.extend(f"{key} at a change of {address}" for key in missing)

    async with asyncio.TaskGroup() as watches:
        tasks = [watches.create_task(watch(address)) for address in experts.parts]
        yield lost
        for task in tasks:
            task.cancel()


async def test_a_stated_placement_is_carried_out_with_no_expert_ever_unready(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two]) as fleet,
    ):
        async with watched(experts) as lost:
            told = await fleet.change(Stated({one: half(0), two: half(1)}))
            assert (experts.hosted(one), experts.hosted(two)) == (half(0), half(1))
            await fleet.change(Stated({one: half(1), two: half(0)}))
            assert (experts.hosted(one), experts.hosted(two)) == (half(1), half(0))
        assert lost == []
        assert told[-1].phase is Phase.DONE
        assert told[-1].num_done == told[-1].num_total
        assert [progress.num_done for progress in told] == sorted(
            progress.num_done for progress in told
        )


async def test_full_services_swap_experts_through_their_transfer_slots(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2, num_slots=13) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two]) as fleet,
    ):
        async with watched(experts) as lost:
            await fleet.change(Stated({one: half(0), two: half(1)}))
            await fleet.change(Stated({one: half(1), two: half(0)}))
        assert (experts.hosted(one), experts.hosted(two)) == (half(1), half(0))
        assert lost == []


async def test_a_drained_service_is_empty_and_stays_so_until_it_is_started_again(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        running_fleet(checkpoint, addresses) as fleet,
    ):
        async with watched(experts) as lost:
            await fleet.change(Without(addresses[0]))
        assert lost == []
        assert experts.hosted(addresses[0]) == frozenset()
        await fleet.change(Even())
        assert experts.hosted(addresses[0]) == frozenset()
        await experts.stop(addresses[0])
        await experts.start(listen=addresses[0])
        await fleet.until(lambda: fleet.fleet.laid.ready_by_service[addresses[0]] == 8)


async def test_holds_end_with_their_operation(model: Path, checkpoint: Checkpoint) -> None:
    async with (
        several(model, 2) as (experts, addresses),
        running_fleet(checkpoint, addresses) as fleet,
    ):
        await fleet.change(Without(addresses[0]))
        parts = experts.parts[addresses[1]]
        await parts.library.unload(
            list(parts.hosting.snapshot().experts[0][:1]), parts.hosting.generation, "another"
        )


@pytest.mark.parametrize(
    ("goal", "error", "message"),
    [
        (Stated({"127.0.0.1:1": EVERY}), BadState, "there is no expert service 127.0.0.1:1"),
        (Stated({}), BadState, "would be on no service"),
        (Without("127.0.0.1:1"), BadState, "there is no expert service 127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_changes(
    goal: Goal, error: type[ServingError], message: str, model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2) as (experts, addresses),
        running_fleet(checkpoint, addresses) as fleet,
    ):
        before = [experts.parts[address].hosting.generation for address in addresses]
        with pytest.raises(error, match=message):
            await fleet.change(goal, force=True)
        assert [experts.parts[address].hosting.generation for address in addresses] == before


async def test_an_expert_that_the_model_does_not_have_is_refused(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with several(model, 1) as (_, (one,)), running_fleet(checkpoint, [one]) as fleet:
        with pytest.raises(NotFound, match="expert 8 of layer 0"):
            await fleet.change(Stated({one: EVERY | {ExpertKey(0, 8)}}))


async def test_less_than_the_coverage_is_refused_unless_forced(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two], coverage=2, requires_coverage=True) as fleet,
    ):
        with pytest.raises(BadState, match="fewer than 2"):
            await fleet.change(Without(one))
        assert experts.hosted(one) == EVERY
        await fleet.change(Without(one), force=True)
        assert (experts.hosted(one), experts.hosted(two)) == (frozenset(), EVERY)


async def test_more_than_memory_holds_is_refused(model: Path, checkpoint: Checkpoint) -> None:
    async with (
        several(model, 2, num_slots=13) as (_, (one, two)),
        running_fleet(checkpoint, [one, two]) as fleet,
    ):
        with pytest.raises(Overloaded, match="memory for 13"):
            await fleet.change(Stated({one: EVERY}))
        with pytest.raises(Overloaded, match="too little expert memory"):
            await fleet.change(Without(two))


async def test_a_target_that_is_lost_while_it_loads_fails_the_operation_and_nothing_else(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        several(model, 3) as (experts, (one, two, three)),
        running_fleet(checkpoint, [one, two, three]) as fleet,
    ):
        await fleet.change(Stated({one: half(0), two: half(1)}))
        loading = loads_tell(monkeypatch, are_held=True)
        async with watched(experts) as lost, asyncio.TaskGroup() as tasks:
            moving = tasks.create_task(
                _failure_of(fleet.change(Stated({one: half(0), three: half(1)})))
            )
            await loading.wait()
            await experts.stop(three)
            assert f"there is no expert service {three}, or it does" in str(await moving)
        assert lost == []
        assert (experts.hosted(one), experts.hosted(two)) == (half(0), half(1))


async def test_a_source_that_is_lost_while_it_retires_its_experts_does_not_stop_the_operation(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        several(model, 3) as (experts, (one, two, three)),
        running_fleet(checkpoint, [one, two, three]) as fleet,
    ):
        await fleet.change(Stated({one: half(0), two: half(1)}))
        retiring = asyncio.Event()
        unload = Library.unload

        async def tell(self: Library, *arguments: object) -> None:
            retiring.set()
            await unload(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Library, "unload", tell)
        async with asyncio.TaskGroup() as tasks:
            moving = tasks.create_task(fleet.change(Stated({one: half(0), three: half(1)})))
            await retiring.wait()
            await experts.stop(two)
            assert (await moving)[-1].phase is Phase.DONE
        assert (experts.hosted(one), experts.hosted(three)) == (half(0), half(1))


async def test_a_generation_that_is_another_ones_is_planned_with_anew(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([Outdated("expected_generation is 1; the hosting's is 2")] * 3)
    async with (
        several(model, 2) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two]) as fleet,
    ):
        load = Library.load

        async def refuse(self: Library, *arguments: Any, **options: Any) -> None:
            for refusal in refusals:
                raise refusal
            await load(self, *arguments, **options)

        monkeypatch.setattr(Library, "load", refuse)
        await fleet.change(Stated({one: half(1), two: half(0)}))
        assert (experts.hosted(one), experts.hosted(two)) == (half(1), half(0))
        assert next(refusals, None) is None


async def test_a_failure_that_trying_again_does_not_mend_leaves_what_was_in_force(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        several(model, 2) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two], waits=Waits(failure_seconds=0.0)) as fleet,
    ):
        await fleet.change(Stated({one: half(0), two: half(1)}))

        def fail(*_: object) -> bytes:
            raise BadState("model.safetensors is truncated")

        with monkeypatch.context() as patch:
            patch.setattr(Bank, "fill", fail)
            error = await _failure_of(fleet.change(Stated({one: half(1), two: half(0)}), "swap"))
        assert isinstance(error, OperationFailed)
        assert "model.safetensors is truncated" in str(error)
        assert (experts.hosted(one), experts.hosted(two)) == (half(0), half(1))
        await fleet.change(
            Stated({one: half(1), two: half(0)}), "swap"
        )  # the same again goes on from there
        assert (experts.hosted(one), experts.hosted(two)) == (half(1), half(0))


async def test_a_service_lost_during_an_even_operation_is_planned_without(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        running_fleet(checkpoint, addresses) as fleet,
    ):
        await fleet.change(Stated({addresses[0]: EVERY}))
        loading = loads_tell(monkeypatch)
        async with asyncio.TaskGroup() as tasks:
            moving = tasks.create_task(fleet.change(Even()))
            await loading.wait()
            await experts.stop(addresses[2])
            assert (await moving)[-1].phase is Phase.DONE
        assert [len(experts.hosted(address)) for address in addresses[:2]] == [12, 12]


async def test_an_operation_that_gives_way_leaves_no_hold_to_the_one_that_follows(
    model: Path, checkpoint: Checkpoint
) -> None:
    """Wherever it is broken off: what it held would stand in the other's way for a minute."""
    there, back = (half(0), half(1)), (half(1), half(0))
    async with (
        several(model, 2) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two], waits=Waits(hold_seconds=60.0)) as fleet,
    ):
        for number in range(12):
            own = Stated({one: there[0], two: there[1]}, is_urgent=True)
            begun = fleet.fleet.operations.begin(f"own-{number}", own, is_own=True)
            for _ in range(number):  # of about ten changes on its way
                if not begun.has_ended:
                    await fleet.fleet.changed.wait()
            await fleet.change(Stated({one: back[0], two: back[1]}, is_urgent=True))
            assert (experts.hosted(one), experts.hosted(two)) == back


async def test_two_routers_that_move_the_same_experts_lose_none(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3, num_slots=20) as (experts, (one, two, three)),
        running_fleet(checkpoint, [one, two, three]) as first,
        running_fleet(checkpoint, [one, two, three]) as second,
    ):
        goals = [
            Stated({one: half(0), two: half(1)}),
            Stated({two: half(0), three: half(1)}),
            Even(),
        ]
        async with watched(experts) as lost:
            for turn in range(6):
                outcomes = await asyncio.gather(
                    first.change(goals[turn % 3]),
                    second.change(goals[(turn + 1) % 3]),
                    return_exceptions=True,
                )
                assert all(isinstance(outcome, list | OperationFailed) for outcome in outcomes), (
                    outcomes
                )
        assert lost == []
        await first.change(goals[0])
        assert (experts.hosted(one), experts.hosted(two), experts.hosted(three)) == (
            half(0),
            half(1),
            frozenset(),
        )
        states = {
            hosted.state
            for parts in experts.parts.values()
            for _, hosted in parts.hosting.snapshot().experts
        }
        assert states == {ExpertState.READY}


async def test_operations_of_one_name_are_one(model: Path, checkpoint: Checkpoint) -> None:
    async with several(model, 2) as (_, (one, two)), running_fleet(checkpoint, [one, two]) as fleet:
        goal = Stated({one: half(1), two: half(0)})
        begun = fleet.fleet.change("move", goal)
        assert fleet.fleet.change("move", goal) is begun
        with pytest.raises(InvalidRequest, match="'move' is that of another operation"):
            fleet.fleet.change("move", Even())
        assert (await fleet.change(goal, "move"))[-1].phase is Phase.DONE
        assert fleet.fleet.change("move", goal) is begun


async def test_an_operation_goes_on_when_who_asked_for_it_leaves(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2) as (experts, (one, two)),
        running_fleet(checkpoint, [one, two]) as fleet,
    ):
        goal = Stated({one: half(1), two: half(0)})
        leaving = fleet.fleet.change("move", goal).follow()
        await anext(leaving)
        await leaving.aclose()
        await fleet.change(goal, "move")
        assert (experts.hosted(one), experts.hosted(two)) == (half(1), half(0))


async def _failure_of(change: object) -> Exception:
    try:
        await change  # type: ignore[misc]
    except ServingError as error:
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("seconds_taken", "megabytes", "rest"),
    [
        (0.01, 60, 9 * 0.01),  # it takes a tenth of the time
        (0.1, 60, 0.2),  # less rest, so that 200 MB/s are moved
        (1.0, 60, 1.0),  # half of the time, however long it takes
    ],
)
def test_after_a_load_that_nobody_waits_for_its_service_rests_unless_that_would_take_too_long(
    seconds_taken: float, megabytes: int, rest: float
) -> None:
    assert (EASY_REST, EASY_BYTES_PER_SECOND) == (9.0, 200e6)
    assert rest_seconds(seconds_taken, megabytes * 1_000_000) == pytest.approx(rest)


async def test_an_operation_tells_the_bytes_that_it_loads(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2) as (_, (one, two)),
        running_fleet(checkpoint, [one, two]) as fleet,
    ):
        await fleet.change(Stated({one: half(0), two: half(1)}))
        told = await fleet.change(Stated({one: half(1), two: half(0)}))
    expert_bytes = 3 * 24 * 32 * 4
    assert {progress.total_bytes for progress in told[1:]} == {24 * expert_bytes}
    assert told[-1].loaded_bytes == 24 * expert_bytes
