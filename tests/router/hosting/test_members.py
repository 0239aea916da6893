"""Services come by address, by a name that resolves anew, and later; who left stays while it is
connected.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.router.hosting.members import MAX_SERVICES, Members
from services.router.hosting.waits import Waits
from services.wire.errors import BadState, InvalidRequest, NotFound, Overloaded, Unavailable


class Peer:
    """Stands for a service: `is_live` as the test says, running until it is cancelled."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_live = True
        self.runs = False
        self.ready: dict[int, object] = {}

    async def run(self) -> None:
        self.runs = True
        try:
            await asyncio.Event().wait()
        finally:
            self.runs = False


class Names:
    """A name server: what it says changes, and who waits is told of look-ups."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {f"dns:///{name}:1": known for name, known in addresses.items()}
        self.looked_up = asyncio.Event()
        self.meeting: asyncio.Barrier | None = None  # of look-ups of names that are new

    async def look_up(self, target: str) -> list[str]:
        self.looked_up.set()
        if self.meeting is not None and target.startswith("dns:///"):
            await self.meeting.wait()
        if target in self.addresses:
            return self.addresses[target]
        if target.startswith("dns:///"):
            raise Unavailable(f"cannot look up {target}")
        if ":" not in target:
            raise InvalidRequest(f"{target!r} is no address of the form host:port")
        return [target]


def members_of(
    names: Names, *targets: str, on_change: Callable[[], None] = lambda: None
) -> Members:
    waits = Waits(look_up_seconds=0.001, unknown_name_seconds=0.0)
    return Members(targets, Peer, on_change, look_up=names.look_up, waits=waits)  # type: ignore[arg-type]


@asynccontextmanager
async def running(names: Names, *targets: str) -> AsyncIterator[tuple[Members, asyncio.Event]]:
    changed = asyncio.Event()
    members = members_of(names, *targets, on_change=changed.set)
    await members.find(0.0)
    task = asyncio.create_task(members.run())
    await until(changed)
    try:
        yield members, changed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()
    event.clear()


def addresses(members: Members) -> list[str]:
    return [peer.address for peer in members.peers]


async def test_a_name_is_looked_up_until_it_has_an_address_or_the_time_is_up() -> None:
    names = Names(experts=[])

    async def appear() -> None:
        await names.looked_up.wait()
        names.addresses["dns:///experts:1"] = ["10.0.0.1:1"]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(appear())
        members = members_of(names, "dns:///experts:1")
        await members.find(10)
    names.addresses["dns:///nobody:1"] = []
    members = members_of(names, "dns:///nobody:1")
    with pytest.raises(Unavailable, match="no address behind dns:///nobody:1"):
        await members.find(0.0)


async def test_a_service_that_joins_a_name_is_connected_to() -> None:
    names = Names(experts=["10.0.0.2:1"])
    async with running(names, "dns:///experts:1", "10.0.0.9:1") as (members, changed):
        assert addresses(members) == ["10.0.0.2:1", "10.0.0.9:1"]
        first = members.peers[0]
        names.addresses["dns:///experts:1"] = ["10.0.0.1:1", "10.0.0.2:1"]
        await until(changed)
        assert addresses(members) == ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.9:1"]
        assert members.peers[1] is first  # whose connection stays


async def test_services_that_are_made_known_at_the_same_time_are_all_known() -> None:
    names = Names(first=["10.0.0.1:1"], second=["10.0.0.2:1"])
    names.meeting = asyncio.Barrier(2)
    async with running(names, "10.0.0.9:1") as (members, _), asyncio.timeout(10):
        await asyncio.gather(members.add(["dns:///first:1"]), members.add(["dns:///second:1"]))
        assert addresses(members) == ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.9:1"]
        members.remove(["dns:///first:1", "dns:///second:1"])
        assert addresses(members) == ["10.0.0.9:1"]


async def test_a_service_that_left_its_name_is_let_go_once_its_connection_is_gone() -> None:
    names = Names(experts=["10.0.0.1:1", "10.0.0.2:1"])
    async with running(names, "dns:///experts:1") as (members, changed):
        leaving = members.peers[1]
        names.addresses["dns:///experts:1"] = ["10.0.0.1:1"]
        for _ in range(3):
            await until(names.looked_up)
        assert addresses(members) == ["10.0.0.1:1", "10.0.0.2:1"]
        leaving.is_live = False  # type: ignore[misc]
        await until(changed)
        assert addresses(members) == ["10.0.0.1:1"]
        await asyncio.sleep(0)
        assert not leaving.runs  # type: ignore[attr-defined]


async def test_a_name_that_cannot_be_looked_up_keeps_what_it_had() -> None:
    names = Names(experts=["10.0.0.1:1"])
    async with running(names, "dns:///experts:1") as (members, _):
        members.peers[0].is_live = False  # type: ignore[misc]
        del names.addresses["dns:///experts:1"]
        for _ in range(3):
            await until(names.looked_up)
        assert addresses(members) == ["10.0.0.1:1"]


async def test_services_made_known_later_are_members_as_the_others_are() -> None:
    names = Names(experts=["10.0.0.1:1"])
    async with running(names, "10.0.0.9:1") as (members, changed):
        await members.add(["10.0.0.8:1", "10.0.0.9:1", "dns:///experts:1"])
        assert addresses(members) == ["10.0.0.1:1", "10.0.0.8:1", "10.0.0.9:1"]
        changed.clear()
        names.addresses["dns:///experts:1"] = ["10.0.0.2:1"]
        await until(changed)
        assert "10.0.0.2:1" in addresses(members)


@pytest.mark.parametrize(
    ("target", "error"), [("nowhere", InvalidRequest), ("dns:///nobody:1", Unavailable)]
)
async def test_what_is_no_service_is_refused_and_changes_nothing(
    target: str, error: type[Exception]
) -> None:
    async with running(Names(), "10.0.0.9:1") as (members, _):
        with pytest.raises(error):
            await members.add(["10.0.0.8:1", target])
        assert addresses(members) == ["10.0.0.9:1"]


async def test_more_services_than_a_router_may_know_are_refused_and_change_nothing() -> None:
    names = Names(many=[f"10.0.1.{number}:1" for number in range(200)])
    dead = [f"10.0.0.{number}:1" for number in range(MAX_SERVICES - 1)]
    async with running(names, "10.0.9.9:1") as (members, _):
        await members.add(dead[:100])
        for targets in ([*dead, "10.0.8.8:1"], ["dns:///many:1"]):
            with pytest.raises(Overloaded, match=f"the limit is {MAX_SERVICES}"):
                await members.add(targets)
        assert len(members.peers) == 101
        await members.add(dead)
        assert len(members.peers) == MAX_SERVICES


async def test_a_name_that_stands_for_too_many_addresses_is_not_followed() -> None:
    names = Names(many=["10.0.1.1:1"])
    too_many = [f"10.0.{number // 250}.{number % 250}:1" for number in range(2000)]
    async with running(names, "dns:///many:1") as (members, _):
        names.addresses["dns:///many:1"] = too_many
        for _ in range(3):
            await until(names.looked_up)
        assert addresses(members) == ["10.0.1.1:1"]
    members = members_of(names, "dns:///many:1")
    with pytest.raises(Overloaded, match="2000 expert services would be known; the limit is 256"):
        await members.find(0.0)


async def test_services_are_forgotten_as_they_were_made_known_once_they_host_nothing() -> None:
    names = Names(experts=["10.0.0.1:1", "10.0.0.9:1"])
    async with running(names, "10.0.0.9:1") as (members, changed):
        await members.add(["10.0.0.8:1", "dns:///experts:1"])
        for unknown in ("10.0.0.1:1", "10.0.0.7:1"):
            with pytest.raises(NotFound, match="is not among the services"):
                members.remove(["10.0.0.8:1", unknown])
        hosting: Any = members.peer("10.0.0.1:1")
        hosting.ready = {0: object()}
        with pytest.raises(BadState, match="drain it"):
            members.remove(["dns:///experts:1"])
        hosting.ready = {}
        changed.clear()
        members.remove(["dns:///experts:1", "10.0.0.8:1"])
        await until(changed)
        assert addresses(members) == ["10.0.0.9:1"]  # which was made known by itself, too
        with pytest.raises(BadState, match="no expert service would be left"):
            members.remove(["10.0.0.9:1"])
