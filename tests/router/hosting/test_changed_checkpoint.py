"""A service that is started again on other weights is not used, and no good copy is given up for
what it has.
"""

import asyncio
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.model.checkpoint import Checkpoint
from services.model.hash_cache import HashCache
from services.router.hosting.contents import Contents
from services.router.hosting.messages import placement_message
from services.router.hosting.own_contents import OwnContents
from services.router.hosting.waits import Waits
from services.router.peers.peer import ExpertPeer
from services.router.planning.goals import Even, Stated
from services.wire.errors import BadState, Outdated
from services.wire.expert_key import ExpertKey
from tests.checkpoints import save_unsampled
from tests.damage import altered
from tests.router.hosting.local_fleet import (
    LocalExperts,
    LocalFleet,
    local_experts,
    running_fleet,
    several,
)

ALL = frozenset(ExpertKey(layer, expert) for layer in range(3) for expert in range(8))


quick_fleet = partial(
    running_fleet,
    waits=Waits(
        coverage_grace_seconds=0.01,
        own_retry_seconds=0.01,
        failure_seconds=0.01,
        trouble_seconds=0.5,
    ),
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_unsampled(tmp_path / "served")


@pytest.fixture
def retrained(tmp_path: Path) -> bytes:
    """Other weights altogether."""
    return (save_unsampled(tmp_path / "retrained", seed=2) / "model.safetensors").read_bytes()


@pytest.fixture
def checkpoint(model: Path) -> Checkpoint:
    return Checkpoint.open(model)


@pytest.fixture
def changed(model: Path, tmp_path: Path) -> Path:
    """Every expert is another; neither headers nor samples show it."""
    folder = Path(shutil.copytree(model, tmp_path / "changed"))
    altered(".experts.")(folder)
    assert Checkpoint.open(folder).digest == Checkpoint.open(model).digest
    return folder


def num_ready(fleet: LocalFleet) -> dict[str, int]:
    return dict(fleet.fleet.laid.ready_by_service)


async def until_refused(fleet: LocalFleet, address: str) -> None:
    """Return once the router has seen what the service has, and that all experts are hosted even
    so.
    """

    def is_refused() -> bool:
        (peer,) = (peer for peer in fleet.fleet.peers if peer.address == address)
        return (
            peer.is_live
            and fleet.fleet.survey.trouble(peer) is not None
            and fleet.fleet.laid.min_live_replicas > 0
        )

    await fleet.until(is_refused)


async def started_again(experts: LocalExperts, address: str, model: Path, **settings: Any) -> None:
    await experts.stop(address)
    assert await experts.start(listen=address, model=model, **settings) == address


async def test_what_a_service_hosts_of_other_weights_is_hosted_anew_where_they_are_good(
    model: Path, checkpoint: Checkpoint, changed: Path
) -> None:
    async with (
        several(model, 2) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        good, other = addresses
        await started_again(experts, other, changed, preload="all")
        await until_refused(fleet, other)
        assert num_ready(fleet) == {good: 24, other: 0}
        for goal in (Even(), Stated({good: frozenset(), other: ALL})):
            with pytest.raises(BadState):  # which would give up the only good copies
                await fleet.change(goal, force=True)
        assert experts.hosted(good) == ALL


async def test_who_hosted_everything_first_is_found_out_by_the_routers_own_checkpoint(
    model: Path, checkpoint: Checkpoint, changed: Path, tmp_path: Path
) -> None:
    hashes = HashCache(tmp_path / "hashes")
    async with local_experts(model) as experts:
        liar = await experts.start(model=changed, preload="all")
        good = await experts.start()
        async with quick_fleet(checkpoint, [good, liar], hashes=hashes) as fleet:
            await fleet.until(lambda: num_ready(fleet) == {good: 24, liar: 0})
            (peer,) = (peer for peer in fleet.fleet.peers if peer.address == liar)
            assert "another checkpoint than the router's" in (
                fleet.fleet.survey.trouble(peer) or ""
            )
            assert fleet.fleet.num_refused(peer) == 24
            shown = placement_message(fleet.fleet, checkpoint.digest)
            assert {each.address: len(each.layers) for each in shown.services} == {good: 3, liar: 0}


async def test_without_a_look_at_the_checkpoint_who_came_first_is_believed(
    model: Path, checkpoint: Checkpoint, changed: Path
) -> None:
    async with local_experts(model) as experts:
        liar = await experts.start(model=changed, preload="all")
        good = await experts.start()
        async with quick_fleet(checkpoint, [good, liar], checks_contents=False) as fleet:
            assert num_ready(fleet) == {good: 0, liar: 24}


async def test_files_that_cannot_be_read_any_more_leave_services_to_be_compared_with_one_another(
    model: Path, checkpoint: Checkpoint, retrained: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    keys, contents = sorted(ALL), Contents()
    (model / "model.safetensors").write_bytes(retrained)
    own = OwnContents(checkpoint, keys, contents, None, lambda: None)
    own.begin()
    await own.run()
    assert "are not compared with the router's" in caplog.text
    assert not contents.known(keys[0])


async def test_with_a_coverage_of_two_a_copy_of_other_weights_covers_nothing(
    model: Path, checkpoint: Checkpoint, changed: Path
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses, coverage=2) as fleet,
    ):
        await fleet.until(lambda: fleet.fleet.laid.num_below(2) == 0)
        first, second, other = addresses
        await started_again(experts, other, changed, preload="all")
        await until_refused(fleet, other)
        await fleet.until(lambda: num_ready(fleet) == {first: 24, second: 24, other: 0})


async def loaded_as_planned(
    peer: ExpertPeer, key: ExpertKey, known: dict[ExpertKey, bytes]
) -> None:
    """Load an expert, once more where the service's hosting was another than was known."""
    while True:
        generation = peer.hosting.generation
        try:
            return await peer.load([key], lambda *_: None, known=known)
        except Outdated:
            await peer.until_newer(generation)


async def test_a_service_that_would_load_other_weights_is_left_without(
    model: Path, checkpoint: Checkpoint, changed: Path
) -> None:
    async with (
        several(model, 2) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        good, other = addresses
        await started_again(experts, other, changed)
        await until_refused(fleet, other)  # it is new, and to be given its share
        assert num_ready(fleet) == {good: 24, other: 0}
        peer, key = fleet.fleet.peers[1], ExpertKey(0, 0)
        known = {key: checkpoint.content_hash(*key)}
        with pytest.raises(
            BadState, match=r"changed has changed: expert 0 of layer 0 is not what it was when the"
        ):
            await loaded_as_planned(peer, key, known)
        assert experts.num_taken(other) == 0


async def test_a_service_with_other_weights_can_be_drained(
    model: Path, checkpoint: Checkpoint, changed: Path
) -> None:
    async with (
        several(model, 2) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        good, other = addresses
        await started_again(experts, other, changed, preload="all")
        await until_refused(fleet, other)
        hosting = experts.parts[other].hosting
        hosting.drain()
        async with asyncio.timeout(10):
            await hosting.wait_until_evacuated()
        assert experts.num_taken(other) == 0
        assert experts.hosted(good) == ALL


async def test_a_good_service_is_emptied_only_onto_good_ones(
    model: Path, checkpoint: Checkpoint, changed: Path
) -> None:
    async with (
        several(model, 3) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        leaving, good, other = addresses
        await started_again(experts, other, changed, preload="all")
        await until_refused(fleet, other)
        hosting = experts.parts[leaving].hosting
        hosting.drain()
        async with asyncio.timeout(10):
            await hosting.wait_until_evacuated()
        assert experts.hosted(good) == ALL


async def test_a_service_that_was_changed_wholly_is_not_used_until_its_files_are_put_back(
    model: Path, checkpoint: Checkpoint, retrained: bytes
) -> None:
    former = (model / "model.safetensors").read_bytes()
    async with (
        several(model, 1) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        (address,) = addresses
        await experts.stop(address)
        (model / "model.safetensors").write_bytes(retrained)
        await experts.start(listen=address)
        await fleet.until(lambda: fleet.placement.unhosted.is_final)
        (reason,) = fleet.placement.unhosted.reasons
        assert reason.startswith(
            f"expert service {address} cannot be used: its checkpoint is not the router's"
        )
        assert num_ready(fleet) == {address: 0}
        (model / "model.safetensors").write_bytes(former)  # it need not be started again
        await fleet.until(lambda: num_ready(fleet) == {address: 24})
        assert not fleet.placement.unhosted.reasons


async def test_a_service_whose_files_change_under_it_serves_on_and_others_load_what_is_missing(
    model: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    async with local_experts(model) as experts:
        folders = [Path(shutil.copytree(model, tmp_path / str(number))) for number in range(3)]
        addresses = [await experts.start(model=folder, num_slots=16) for folder in folders]
        async with quick_fleet(checkpoint, addresses) as fleet:
            lost, touched, good = addresses
            before = experts.hosted(touched)
            with (folders[1] / "model.safetensors").open("r+b") as file:
                file.truncate(1000)
            await experts.stop(lost)
            await fleet.until(lambda: num_ready(fleet) == {lost: 0, touched: 8, good: 16})
            assert experts.hosted(touched) == before
            assert experts.hosted(good) == ALL - before


async def test_when_the_last_service_cannot_load_any_more_nobody_waits_for_it(
    model: Path, checkpoint: Checkpoint, retrained: bytes
) -> None:
    former = (model / "model.safetensors").read_bytes()
    async with (
        several(model, 2) as (experts, addresses),
        quick_fleet(checkpoint, addresses) as fleet,
    ):
        lost, left = addresses
        with (model / "model.safetensors").open("r+b") as file:
            file.write(retrained)
        await experts.stop(lost)
        await experts.start(listen=lost)  # on what is there now
        await fleet.until(lambda: fleet.placement.unhosted.is_final)
        reasons = dict(zip((lost, left), fleet.placement.unhosted.reasons, strict=True))
        assert "its checkpoint is not the router's" in reasons[lost]
        assert "model.safetensors has changed since this process opened it" in reasons[left]
        assert num_ready(fleet) == {lost: 0, left: 12}
        (model / "model.safetensors").write_bytes(former)
        await fleet.until(lambda: fleet.fleet.laid.min_live_replicas == 1)
