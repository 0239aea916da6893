"""What is lost is loaded elsewhere, coverage is kept, who drains is emptied, who is new is given
experts.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.expert.loading import Library
from services.model.checkpoint import Checkpoint
from services.router.dispatch.awaited import Awaited
from services.router.hosting.survey import Survey
from services.router.hosting.waits import Waits
from services.router.planning.goals import Stated
from services.router.planning.host import Host
from services.wire.errors import BadState
from services.wire.expert_key import ExpertKey
from tests.router.hosting.local_fleet import (
    LocalExperts,
    LocalFleet,
    local_experts,
    running_fleet,
    several,
)

NUM_EXPERTS = 24
ALL = frozenset(ExpertKey(layer, expert) for layer in range(3) for expert in range(8))


quick_fleet = partial(
    running_fleet,
    waits=Waits(look_up_seconds=0.01, coverage_grace_seconds=0.01, own_retry_seconds=0.01),
)


def replicas(experts: LocalExperts) -> Counter[ExpertKey]:
    return Counter(key for address in experts.parts for key in experts.hosted(address))


def num_ready(fleet: LocalFleet) -> dict[str, int]:
    return dict(fleet.fleet.laid.ready_by_service)


async def test_experts_are_spread_evenly_over_the_services(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        assert num_ready(fleet) == dict.fromkeys(addresses, NUM_EXPERTS // 3)
        assert set(replicas(experts).values()) == {1}


async def test_every_expert_is_on_as_many_services_as_asked_for(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses, coverage=2, requires_coverage=True) as fleet,
    ):
        assert fleet.fleet.laid.min_live_replicas == 2  # it is complete only then
        assert set(replicas(experts).values()) == {2}


async def test_a_coverage_that_memory_does_not_hold_is_reported(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with several(model, 2, num_slots=16) as (_, addresses):
        async with quick_fleet(checkpoint, addresses, coverage=2) as fleet:
            await fleet.until(
                lambda: sum(num_ready(fleet).values()) == 30
            )  # but for a transfer slot each
            assert fleet.fleet.laid.num_below(2) == 18
            assert fleet.fleet.laid.num_below(1) == 0


async def test_a_coverage_that_memory_does_not_hold_ends_the_start_where_it_is_required(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with several(model, 2, num_slots=16) as (_, addresses):
        with pytest.raises(ExceptionGroup) as caught:
            async with quick_fleet(checkpoint, addresses, coverage=2, requires_coverage=True):
                pass
        error: BaseException = caught.value
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, BadState)
        assert "coverage is 2, and 18 experts would be on fewer services" in str(error)


async def test_experts_of_a_lost_service_are_loaded_on_the_others(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        await experts.stop(addresses[0])
        await fleet.until(
            lambda: num_ready(fleet) == {addresses[0]: 0, addresses[1]: 12, addresses[2]: 12}
        )
        assert fleet.fleet.laid.min_live_replicas == 1


async def test_looking_after_goes_on_after_what_nobody_foresaw(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, hosts = iter([KeyError("first"), KeyError("second")]), Survey.hosts

    def failing(survey: Survey, *arguments: Any) -> list[Host]:
        for error in errors:
            raise error
        return hosts(survey, *arguments)

    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        monkeypatch.setattr(Survey, "hosts", failing)
        await experts.stop(addresses[0])
        await fleet.until(
            lambda: num_ready(fleet) == {addresses[0]: 0, addresses[1]: 12, addresses[2]: 12}
        )
    assert list(errors) == []


async def test_with_two_replicas_the_loss_of_a_service_leaves_none_without_and_is_made_good(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses, coverage=2, requires_coverage=True) as fleet,
    ):
        least = [2]
        await experts.stop(addresses[0])

        def is_covered() -> bool:
            least.append(fleet.fleet.laid.min_live_replicas)
            return least[-1] == 2 and 1 in least

        await fleet.until(is_covered)
        assert min(least) == 1


async def test_what_fits_is_loaded_even_where_not_all_does(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3, num_slots=9) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        await experts.stop(addresses[0])
        await fleet.until(lambda: sum(num_ready(fleet).values()) == 18)
        assert fleet.fleet.laid.num_below(1) == NUM_EXPERTS - 18


async def test_a_service_that_joins_is_given_its_share(model: Path, checkpoint: Checkpoint) -> None:
    async with (
        several(model, 2) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        joined = await experts.start()
        assert joined in await fleet.fleet.add([joined])
        await fleet.until(lambda: set(num_ready(fleet).values()) == {8})
        await fleet.until(lambda: fleet.fleet.operations.current is None)
        assert set(replicas(experts).values()) == {1}


async def test_a_service_that_comes_back_is_given_its_share(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        await experts.stop(addresses[0])
        await fleet.until(
            lambda: num_ready(fleet) == {addresses[0]: 0, addresses[1]: 12, addresses[2]: 12}
        )
        assert await experts.start(listen=addresses[0]) == addresses[0]
        await fleet.until(lambda: set(num_ready(fleet).values()) == {8})


async def test_what_a_crash_has_skewed_is_evened_out_when_the_lost_service_is_back(
    model: Path, checkpoint: Checkpoint
) -> None:
    # The others have room for a part of what is lost; the rest waits for the one that comes back.
    async with (
        several(model, 3, num_slots=10) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        await experts.stop(addresses[0])
        await fleet.until(
            lambda: num_ready(fleet) == {addresses[0]: 0, addresses[1]: 10, addresses[2]: 10}
        )
        assert await experts.start(listen=addresses[0], num_slots=10) == addresses[0]
        await fleet.until(lambda: fleet.fleet.laid.num_below(1) == 0)
        await fleet.until(lambda: set(num_ready(fleet).values()) == {8})


async def test_what_requests_wait_for_is_loaded_first(
    model: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load, awaited = list[ExpertKey](), Library.load, Awaited()

    async def noting(library: Library, keys: Sequence[ExpertKey], *rest: Any, **more: Any) -> None:
        loaded.extend(keys)
        await load(library, keys, *rest, **more)

    async with (
        several(model, 2) as (experts, addresses),
        quick_fleet(checkpoint, addresses, awaited=awaited) as fleet,
    ):
        last = max(experts.hosted(addresses[0]))
        monkeypatch.setattr(Library, "load", noting)
        with awaited.wait() as wait:
            wait.turn_to({last})
            await experts.stop(addresses[0])
            await fleet.until(lambda: num_ready(fleet)[addresses[1]] == NUM_EXPERTS)
        assert loaded[0] == last


async def test_a_service_that_drains_is_emptied_and_no_expert_is_without_a_replica(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        hosting = experts.parts[addresses[1]].hosting
        hosting.drain()
        least = [1]

        def is_emptied() -> bool:
            least.append(fleet.fleet.laid.min_live_replicas)
            return hosting.num_hosted == 0

        async with asyncio.timeout(10):
            await asyncio.gather(hosting.wait_until_evacuated(), fleet.until(is_emptied))
        assert min(least) == 1
        await experts.stop(addresses[1])
        await fleet.until(lambda: not fleet.fleet.peers[1].is_live)
        assert set(replicas(experts).values()) == {1}


async def test_services_that_drain_together_are_emptied_one_after_the_other(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 4) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        leaving = [experts.parts[address].hosting for address in addresses[:2]]
        for hosting in leaving:
            hosting.drain()
        async with asyncio.timeout(10):
            await asyncio.gather(*(hosting.wait_until_evacuated() for hosting in leaving))
        await fleet.until(
            lambda: num_ready(fleet)[addresses[0]] == num_ready(fleet)[addresses[1]] == 0
        )
        assert fleet.fleet.laid.min_live_replicas == 1


async def test_replicas_beyond_the_coverage_stay_until_memory_is_short(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with local_experts(model) as experts:
        addresses = sorted([await experts.start(num_slots=30, preload="all") for _ in range(2)])
        async with quick_fleet(checkpoint, addresses) as fleet:
            assert num_ready(fleet) == dict.fromkeys(addresses, NUM_EXPERTS)
            joined = await experts.start(num_slots=30)  # even is: each expert once
            await fleet.fleet.add([joined])
            await fleet.until(lambda: set(num_ready(fleet).values()) == {8})


async def test_replicas_beyond_the_coverage_make_room_for_what_a_lost_service_hosted(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3, num_slots=16) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        first, second, third = addresses
        same = frozenset(ExpertKey(layer, expert) for layer in range(3) for expert in range(5))
        await fleet.change(Stated({first: ALL - same, second: same, third: same}))
        await experts.stop(first)
        await fleet.until(
            lambda: num_ready(fleet)[first] == 0 and fleet.fleet.laid.min_live_replicas == 1
        )
        assert replicas(experts).keys() == ALL


async def test_replicas_beyond_the_coverage_make_room_at_the_start(
    model: Path, checkpoint: Checkpoint
) -> None:
    """As another router left them, with a service gone since."""
    async with several(model, 2, num_slots=16) as (experts, addresses):
        same = [
            expert_pb2.ExpertId(layer=layer, expert=expert)
            for layer in range(3)
            for expert in range(5)
        ]
        for address in addresses:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = expert_pb2_grpc.ExpertServiceStub(channel)
                generation = experts.parts[address].hosting.snapshot().generation
                request = expert_pb2.LoadExpertsRequest(
                    expected_generation=generation, model_digest=checkpoint.digest, experts=same
                )
                async for _ in stub.LoadExperts(request):
                    pass
        async with quick_fleet(checkpoint, addresses):
            assert replicas(experts).keys() == ALL


async def test_a_service_that_joins_a_name_is_given_its_share(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with several(model, 2) as (experts, addresses):
        behind = {"dns:///experts:1": addresses[:1]}

        async def look_up(target: str) -> list[str]:
            return behind[target]

        async with quick_fleet(checkpoint, list(behind), look_up=look_up) as fleet:
            assert experts.hosted(addresses[1]) == frozenset()
            behind["dns:///experts:1"] = addresses
            await fleet.until(
                lambda: num_ready(fleet) == dict.fromkeys(addresses, NUM_EXPERTS // 2)
            )


async def test_two_routers_make_a_loss_good_side_by_side(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as first,
        quick_fleet(checkpoint, addresses) as second,
    ):
        await experts.stop(addresses[0])
        for fleet in (first, second):
            await fleet.until(lambda fleet=fleet: num_ready(fleet)[addresses[0]] == 0)
            await fleet.until(lambda fleet=fleet: fleet.fleet.laid.min_live_replicas == 1)
        assert len(replicas(experts)) == NUM_EXPERTS


async def test_of_two_routers_one_plans_and_the_other_takes_over_when_it_is_gone(
    model: Path, checkpoint: Checkpoint
) -> None:
    waits = Waits(own_retry_seconds=0.01, planning_ask_seconds=0.02, planning_hold_seconds=0.2)
    named = partial(running_fleet, checkpoint, waits=waits)
    async with several(model, 2) as (experts, addresses), AsyncExitStack() as stack:
        first = await stack.enter_async_context(named(addresses, name="first"))
        await first.until(lambda: first.fleet.is_planner)
        async with named(addresses, name="second") as second:
            joined = await experts.start()
            for fleet in (first, second):
                await fleet.fleet.add([joined])
            begun_by_second = []

            def has_its_share() -> bool:
                begun_by_second.append(second.fleet.operations.current)
                return num_ready(second).get(joined) == NUM_EXPERTS // 3

            await second.until(has_its_share)
            assert set(begun_by_second) == {None}
            assert first.fleet.is_planner
            assert not second.fleet.is_planner
            await stack.aclose()
            await second.until(lambda: second.fleet.is_planner)
            again = await experts.start()
            await second.fleet.add([again])
            await second.until(lambda: num_ready(second).get(again) == NUM_EXPERTS // 4)


async def test_two_routers_empty_a_service_that_drains_and_lose_nothing(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses),
        quick_fleet(checkpoint, addresses),
    ):
        hosting = experts.parts[addresses[0]].hosting
        hosting.drain()
        async with asyncio.timeout(10):
            await hosting.wait_until_evacuated()
        assert len(replicas(experts)) == NUM_EXPERTS


async def test_two_routers_give_a_service_that_joins_its_share_and_lose_nothing(
    model: Path, checkpoint: Checkpoint
) -> None:
    async with (
        several(model, 2) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as first,
        quick_fleet(checkpoint, addresses) as second,
    ):
        joined = await experts.start()
        least = [1]
        for fleet in (first, second):
            await fleet.fleet.add([joined])
        for fleet in (first, second):

            def is_even(fleet: LocalFleet = fleet) -> bool:
                least.append(fleet.fleet.laid.min_live_replicas)
                return (
                    set(num_ready(fleet).values()) == {8} and fleet.fleet.operations.current is None
                )

            await fleet.until(is_even)
        assert min(least) == 1
