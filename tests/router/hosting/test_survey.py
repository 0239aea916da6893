"""What plans are made of: who is there, who may take experts, and what is under way."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from moesaic.v1 import expert_pb2
from services.router.hosting.contents import Contents
from services.router.hosting.survey import Survey
from services.router.hosting.transfers import Transfers
from services.router.hosting.troubles import Troubles
from services.router.hosting.waits import WAITS
from services.router.planning.targets import missing_replicas
from services.wire.errors import BadState, ServingError
from services.wire.expert_key import ExpertKey
from tests.clock import Clock

READY, LOADING, RETIRING = (
    expert_pb2.EXPERT_STATE_READY,
    expert_pb2.EXPERT_STATE_LOADING,
    expert_pb2.EXPERT_STATE_RETIRING,
)


@dataclass
class Peer:
    """What a survey looks at."""

    address: str
    is_live: bool = True
    is_suspect: bool = False
    is_draining: bool = False
    description: expert_pb2.ExpertServiceDescribeResponse = field(
        default_factory=lambda: expert_pb2.ExpertServiceDescribeResponse(
            expert_bytes=[10, 10], moe_layers=[0, 1], num_experts=8
        )
    )
    hosting: expert_pb2.WatchHostingResponse = field(
        default_factory=lambda: expert_pb2.WatchHostingResponse(
            instance="first", generation=1, free_memory_bytes=45
        )
    )
    hashes: dict[ExpertKey, bytes] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        return self.is_live and not self.is_suspect

    @property
    def content_hashes(self) -> dict[ExpertKey, bytes]:
        return self.hashes

    def host(self, state: int, *experts: tuple[int, int]) -> "Peer":
        for layer, expert in experts:
            self.hosting.experts.add(layer=layer, expert=expert, state=state)
        self.hosting.generation += 1
        return self

    async def load(self, *arguments: object, **options: object) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def peer() -> Peer:
    return Peer("a:1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def contents() -> Contents:
    return Contents()


@pytest.fixture
def troubles(clock: Clock) -> Troubles:
    return Troubles(lambda: None, now=clock)


@pytest.fixture
def transfers(contents: Contents, troubles: Troubles) -> Transfers:
    return Transfers(lambda: None, contents, troubles)


@pytest.fixture
def survey(
    peer: Peer, transfers: Transfers, contents: Contents, troubles: Troubles, clock: Clock
) -> Survey:
    members: Any = SimpleNamespace(peers=[peer])
    return Survey(members, transfers, contents, troubles, now=clock)


def test_experts_are_told_apart_by_their_states_and_all_take_memory(
    peer: Peer, survey: Survey
) -> None:
    peer.host(READY, (0, 0)).host(LOADING, (0, 1)).host(RETIRING, (0, 2))
    (host,) = survey.hosts()
    assert (host.hosted, host.loading, host.retiring) == ({(0, 0)}, {(0, 1)}, {(0, 2)})
    assert (host.num_slots, host.num_free) == (7, 4)


def test_a_service_that_claims_more_memory_than_there_are_numbers_for_is_planned_with(
    peer: Peer, survey: Survey
) -> None:
    peer.hosting.free_memory_bytes = (1 << 64) - 1
    peer.description.expert_bytes[:] = [1, 1]
    experts = [ExpertKey(layer, expert) for layer in range(2) for expert in range(8)]
    assert missing_replicas(experts, survey.hosts(), 1).loads == {"a:1": experts}


async def test_what_is_under_way_counts_before_the_service_shows_it(
    peer: Peer, survey: Survey, transfers: Transfers
) -> None:
    peer.host(READY, (0, 0))
    async with asyncio.TaskGroup() as tasks:
        task = transfers.load(tasks, peer, [ExpertKey(0, 0), ExpertKey(0, 1)])  # type: ignore[arg-type]
        (host,) = survey.hosts()
        assert (host.hosted, host.loading) == ({(0, 0)}, {(0, 1)})
        task.cancel()
    async with asyncio.TaskGroup() as tasks:
        task = transfers.unload(tasks, peer, [(0, 0)], [(peer, [(0, 1)])], "move")  # type: ignore[arg-type, list-item]
        (host,) = survey.hosts()
        assert (host.hosted, host.retiring) == (frozenset(), {(0, 0)})
        task.cancel()
    assert survey.hosts()[0].hosted == {(0, 0)}


def test_a_service_that_is_not_connected_is_not_there(peer: Peer, survey: Survey) -> None:
    peer.is_live = False
    assert survey.hosts() == []


def test_a_suspect_service_counts_for_a_moment_but_takes_nothing(
    peer: Peer, survey: Survey, clock: Clock
) -> None:
    survey.observe()
    assert survey.seconds_until_given_up() is None
    peer.is_suspect = True
    survey.observe()
    (host,) = survey.hosts()
    assert not host.takes
    clock.seconds += WAITS.suspect_grace_seconds / 2
    survey.observe()  # whatever else changes does not begin the moment anew
    assert survey.seconds_until_given_up() == pytest.approx(WAITS.suspect_grace_seconds / 2)
    clock.seconds += WAITS.suspect_grace_seconds
    assert survey.hosts() == []
    assert survey.seconds_until_given_up() is None
    peer.is_suspect = False
    survey.observe()
    assert survey.hosts()[0].takes


def test_a_service_is_new_until_it_has_had_its_share(peer: Peer, survey: Survey) -> None:
    survey.observe()
    assert survey.is_new(peer)  # type: ignore[arg-type]
    peer.host(READY, (0, 0))
    survey.observe()
    assert survey.is_new(peer), "an expert that nobody else had is no share"  # type: ignore[arg-type]
    survey.note_shared()
    assert not survey.is_new(peer)  # type: ignore[arg-type]
    del peer.hosting.experts[:]
    survey.observe()
    assert not survey.is_new(peer)  # type: ignore[arg-type]
    peer.hosting.instance = "second"
    survey.observe()
    assert survey.is_new(peer)  # type: ignore[arg-type]


def test_a_service_that_comes_with_experts_is_not_new(peer: Peer, survey: Survey) -> None:
    peer.host(LOADING, (0, 0))
    survey.observe()
    assert not survey.is_new(peer)  # type: ignore[arg-type]


def test_a_service_that_is_kept_empty_is_so_until_it_is_started_again(
    peer: Peer, survey: Survey
) -> None:
    survey.keep_empty("a:1")
    assert survey.hosts()[0].is_draining
    assert not survey.is_new(peer)  # type: ignore[arg-type]
    peer.hosting.instance = "second"
    assert not survey.hosts()[0].is_draining
    assert survey.is_new(peer)  # type: ignore[arg-type]


def test_a_service_is_draining_by_its_own_word_or_for_an_operation(
    peer: Peer, survey: Survey
) -> None:
    assert not survey.hosts()[0].is_draining
    assert survey.hosts({"a:1"})[0].is_draining
    peer.is_draining = True
    assert survey.hosts()[0].is_draining


async def test_a_load_that_fails_unforeseen_is_that_loads_failure(
    peer: Peer, transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(peer, "load", failing)
    async with asyncio.TaskGroup() as tasks:
        error = await transfers.load(tasks, peer, [ExpertKey(0, 0)])  # type: ignore[arg-type]
    assert isinstance(error, ServingError)
    assert "secret" not in str(error)
    assert transfers.is_idle()


@pytest.mark.parametrize("is_settled", [False, True])
def test_what_differs_from_what_is_known_takes_memory_and_is_not_hosted(
    peer: Peer, survey: Survey, contents: Contents, is_settled: bool
) -> None:
    contents.observe([Peer("b:1", hashes={ExpertKey(0, 0): b"one", ExpertKey(0, 1): b"two"})])
    if is_settled:
        contents.settle()
    peer.host(READY, (0, 0), (0, 1))
    peer.hashes = {ExpertKey(0, 0): b"one", ExpertKey(0, 1): b"other"}
    (host,) = survey.hosts()
    assert (host.hosted, host.refused, host.num_free) == ({(0, 0)}, {(0, 1)}, 4)
    assert not host.takes
    trouble = survey.trouble(peer) or ""  # type: ignore[arg-type]
    assert ("from what b:1 had" in trouble) if is_settled else ("different weights" in trouble)
    assert survey.replicas(peer) == {(0, 0)}  # type: ignore[arg-type]


def test_a_service_that_cannot_load_is_given_nothing_for_a_while_or_until_it_is_started_again(
    peer: Peer, survey: Survey, troubles: Troubles, clock: Clock
) -> None:
    troubles.add("a:1", "first", BadState("the file has changed"))
    assert not survey.hosts()[0].takes
    assert survey.trouble(peer) == "expert service a:1 cannot load experts: the file has changed"  # type: ignore[arg-type]
    assert survey.seconds_until_asked_again() == WAITS.trouble_seconds
    peer.hosting.instance = "second"
    assert survey.hosts()[0].takes
    peer.hosting.instance = "first"
    clock.seconds += WAITS.trouble_seconds
    assert survey.hosts()[0].takes
    assert survey.seconds_until_asked_again() is None
