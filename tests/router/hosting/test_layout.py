"""What is ready on services that can be used is laid out; claims that disagree are not."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from moesaic.v1 import expert_pb2
from services.router.dispatch.frame_pairs import NOBODY
from services.router.dispatch.placement import MAX_FRAME_BYTES
from services.router.hosting.contents import Contents
from services.router.hosting.layout import HostingLayout, LaidOut
from services.wire.expert_key import ExpertKey

LAYERS, NUM_EXPERTS = (1, 3), 4


@dataclass
class Peer:
    """What a layout looks at."""

    address: str
    content_hashes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    is_usable: bool = True
    is_being_tried: bool = False
    description: expert_pb2.ExpertServiceDescribeResponse | None = None
    ready: Mapping[int, np.ndarray] = field(default_factory=dict)

    def host(self, *experts: tuple[int, int], content_hash: bytes = b"same") -> "Peer":
        self.content_hashes = dict.fromkeys(experts, content_hash)
        ready: dict[int, np.ndarray] = {}
        for layer, expert in experts:
            ready.setdefault(layer, np.zeros(NUM_EXPERTS, dtype=bool))[expert] = True
        self.ready = ready
        return self


@pytest.fixture
def conflicts() -> list[str]:
    return []


@pytest.fixture
def contents() -> Contents:
    return Contents()


@pytest.fixture
def layout(contents: Contents, conflicts: list[str]) -> HostingLayout:
    return HostingLayout(LAYERS, NUM_EXPERTS, contents, lambda told, _: conflicts.append(told))


def lay_out(layout: HostingLayout, *peers: Peer) -> LaidOut:
    return layout.lay_out(peers)  # type: ignore[arg-type]


def test_an_expert_is_where_it_is_ready(layout: HostingLayout) -> None:
    laid = lay_out(layout, Peer("a:1").host((1, 0), (3, 2)), Peer("b:1").host((1, 0), (1, 1)))
    assert laid.placement.replicas[1].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
    ]
    assert laid.placement.owners[1][1] == 1
    assert laid.placement.owners[3].tolist() == [NOBODY, NOBODY, 0, NOBODY]
    assert laid.ready_by_service == {"a:1": 2, "b:1": 2}
    assert (laid.num_below(1), laid.num_below(2)) == (5, 7)
    assert laid.min_live_replicas == 0


def test_without_services_nothing_is_ready(layout: HostingLayout) -> None:
    laid = lay_out(layout)
    assert laid.num_below(1) == len(LAYERS) * NUM_EXPERTS
    assert laid.min_live_replicas == 0


def test_the_limit_of_a_frame_is_that_of_its_own_service(layout: HostingLayout) -> None:
    small, unknown, huge = Peer("a:1"), Peer("b:1"), Peer("c:1")
    small.description = expert_pb2.ExpertServiceDescribeResponse(max_frame_bytes=64)
    huge.description = expert_pb2.ExpertServiceDescribeResponse(max_frame_bytes=1 << 60)
    most = lay_out(layout, small, unknown, huge).placement.most_in_frame(16)
    assert most == [2, MAX_FRAME_BYTES // 32, MAX_FRAME_BYTES // 32]


def test_a_service_that_cannot_be_used_is_left_out_until_it_can(layout: HostingLayout) -> None:
    peer = Peer("a:1").host((1, 0))
    assert lay_out(layout, peer).placement.owners[1][0] == 0
    peer.is_usable = False
    assert lay_out(layout, peer).placement.owners[1][0] == NOBODY
    peer.is_usable = True
    assert lay_out(layout, peer).placement.owners[1][0] == 0


def test_what_a_service_has_that_is_being_tried_is_known_and_not_used(
    layout: HostingLayout,
) -> None:
    good, tried = Peer("a:1").host((1, 0)), Peer("b:1", is_usable=False).host((1, 0), (3, 1))
    tried.is_being_tried = True
    placement = lay_out(layout, good, tried).placement
    assert placement.addresses_of(1, 0) == {"a:1", "b:1"}
    assert (placement.addresses_of(3, 1), placement.candidates(3, 1)) == ({"b:1"}, ())
    assert placement.addresses_of(3, 2) == set()


def test_what_a_service_hosts_anew_replaces_what_it_hosted(layout: HostingLayout) -> None:
    peer = Peer("a:1").host((1, 0))
    lay_out(layout, peer)
    laid = lay_out(layout, peer.host((1, 1)))
    assert laid.placement.owners[1].tolist() == [NOBODY, 0, NOBODY, NOBODY]


def test_a_claim_that_disagrees_is_not_used_and_told_once(
    layout: HostingLayout, conflicts: list[str]
) -> None:
    first, second = (
        Peer("a:1").host((1, 0)),
        Peer("b:1").host((1, 0), (1, 1), content_hash=b"other"),
    )
    for _ in range(2):
        laid = lay_out(layout, first, second)
    assert laid.placement.owners[1].tolist() == [0, 1, NOBODY, NOBODY]
    assert conflicts == ["a:1 and b:1 claim different weights for expert 0 of layer 1"]


def test_a_claim_ends_with_the_service_that_made_it(
    layout: HostingLayout, conflicts: list[str]
) -> None:
    first = Peer("a:1").host((1, 0))
    lay_out(layout, first)
    first.is_usable = False
    laid = lay_out(layout, first, Peer("b:1").host((1, 0), content_hash=b"other"))
    assert laid.placement.owners[1][0] == 1
    assert conflicts == []


def test_a_claim_ends_with_the_replica_that_it_is_of(layout: HostingLayout) -> None:
    first = Peer("a:1").host((1, 0))
    second = Peer("b:1").host((1, 0), content_hash=b"other")
    assert lay_out(layout, first, second).placement.owners[1][0] == 0
    first.host((1, 1))  # it was moved
    assert lay_out(layout, first, second).placement.owners[1].tolist()[:2] == [1, 0]
    assert lay_out(layout, first.host((1, 0)), second).placement.owners[1][0] == 1


@pytest.mark.parametrize("is_settled", [False, True])
def test_who_has_another_expert_than_the_router_read_is_refused_whoever_came_first(
    layout: HostingLayout, contents: Contents, conflicts: list[str], is_settled: bool
) -> None:
    liar = Peer("a:1").host((1, 0), (1, 1), content_hash=b"other")
    good = Peer("b:1").host((1, 0))
    lay_out(layout, liar, good)
    if is_settled:
        contents.settle()
    conflicts.clear()
    assert contents.note_own({ExpertKey(1, 0): b"same", ExpertKey(3, 0): b"same"})
    assert lay_out(layout, liar, good).placement.owners[1].tolist()[:2] == [1, 0]
    assert not contents.note_own({ExpertKey(3, 1): b"same"})
    assert lay_out(layout, liar, good.host((3, 1))).placement.owners[3][1] == 1
    assert conflicts == [
        "expert service a:1 has read another checkpoint than the router's: expert 0 of layer 1 "
        "differs; give both the same files and start a:1 again"
    ]
    assert contents.known(ExpertKey(3, 0)) == b"same"


@pytest.mark.parametrize("address", ["a:1", "b:1"])
def test_once_all_is_settled_a_claim_outlives_the_service_that_made_it(
    layout: HostingLayout, contents: Contents, conflicts: list[str], address: str
) -> None:
    first = Peer("a:1").host((1, 0), (1, 1))
    lay_out(layout, first)
    contents.settle()
    lay_out(layout)
    changed = Peer(address).host((1, 0), (1, 1), content_hash=b"other")
    assert lay_out(layout, changed).placement.owners[1].tolist() == [NOBODY] * NUM_EXPERTS
    assert conflicts == [
        f"the checkpoint that expert service {address} has read is not what it was when the "
        "router started: "
        "expert 0 of layer 1 differs from what a:1 had; put the former files back and start "
        f"{address} again, or start everything again with the new ones"
    ]
    restored = Peer(address).host((1, 0))
    assert lay_out(layout, restored).placement.owners[1][0] == 0


def test_what_is_settled_is_what_services_are_asked_for(
    layout: HostingLayout, contents: Contents
) -> None:
    first = Peer("a:1").host((1, 0))
    lay_out(layout, first)
    assert contents.known(ExpertKey(1, 0)) == b""
    contents.settle()
    assert (contents.known(ExpertKey(1, 0)), contents.known(ExpertKey(1, 1))) == (b"same", b"")
