"""A frame's pairs fall to replicas so that the last service is done soon: few experts each, or few
pairs each.
"""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.dispatch.split import Speeds, assign_split, assign_whole

Hosts = list[list[int]]
Parts = list[list[tuple[int, int]]]


def done_at(parts: Parts, busy: list[float], speeds: Speeds) -> list[float]:
    """When each service is done."""
    nanos = list(busy)
    for part in parts:
        for service, count in part:
            nanos[service] += speeds.expert_nanos[service] + count * speeds.pair_nanos[service]
    return nanos


def done(parts: Parts, busy: list[float], speeds: Speeds) -> float:
    """When the last service that was given anything, or was busy, is done."""
    return max(done_at(parts, busy, speeds))


def layer_done(parts: Parts, busy: list[float], speeds: Speeds) -> float:
    """When the last service that was given anything is done."""
    nanos = done_at(parts, busy, speeds)
    return max(nanos[service] for part in parts for service, _ in part)


def equal(num_services: int, expert_nanos: float, pair_nanos: float) -> Speeds:
    return Speeds([expert_nanos] * num_services, [pair_nanos] * num_services)


@st.composite
def frames(draw: st.DrawFn) -> tuple[list[int], Hosts, list[float], Speeds]:
    num_services = draw(st.integers(1, 4))
    services = st.lists(st.integers(0, num_services - 1), min_size=1, max_size=3, unique=True)
    pairs = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    nanos = st.lists(
        st.sampled_from([0.0, 1.0, 10.0, 100.0]), min_size=num_services, max_size=num_services
    )
    return pairs, [draw(services) for _ in pairs], draw(nanos), Speeds(draw(nanos), draw(nanos))


@settings(max_examples=200)
@given(frames())
def test_every_pair_is_computed_once_by_a_service_that_has_its_expert(
    frame: tuple[list[int], Hosts, list[float], Speeds],
) -> None:
    pairs, hosts, _, _ = frame
    parts = assign_split(*frame)
    assert [sum(count for _, count in part) for part in parts] == pairs
    for part, there in zip(parts, hosts, strict=True):
        services = [service for service, _ in part]
        assert set(services) <= set(there)
        assert len(set(services)) == len(services)
        assert all(count > 0 for _, count in part)


@settings(max_examples=200)
@given(frames(), st.sampled_from([0.0, 50.0]))
def test_the_layer_is_never_done_later_than_with_whole_experts(
    frame: tuple[list[int], Hosts, list[float], Speeds], until: float
) -> None:
    pairs, hosts, busy, speeds = frame
    owners = assign_whole(pairs, hosts, list(busy), speeds)
    before = layer_done([[it] for it in zip(owners, pairs, strict=True)], busy, speeds)
    assert layer_done(assign_split(*frame, until_nanos=until), busy, speeds) <= before * (1 + 1e-9)


@settings(max_examples=200)
@given(frames())
def test_it_takes_at_most_twice_as_long_as_the_best_way_to_keep_experts_whole(
    frame: tuple[list[int], Hosts, list[float], Speeds],
) -> None:
    pairs, hosts, busy, speeds = frame
    speeds = equal(len(busy), speeds.expert_nanos[0], speeds.pair_nanos[0])
    ways = (
        [[(service, count)] for service, count in zip(way, pairs, strict=True)]
        for way in product(*hosts)
    )
    best = min(done(way, busy, speeds) for way in ways)
    assert done(assign_split(pairs, hosts, busy, speeds), busy, speeds) <= 2 * best


def test_in_decode_no_expert_is_computed_twice_and_none_has_more_experts_than_it_must() -> None:
    hosts = [[0], [0], [0], [1], [1], [1], [0, 1], [0, 1]]
    parts = assign_split([1, 2, 1, 3, 1, 1, 2, 2], hosts, [0.0, 0.0], equal(2, 1000.0, 10.0))
    assert all(len(part) == 1 for part in parts)
    assert sum(part[0][0] for part in parts) == 4


def test_in_prefill_a_hot_expert_is_split_so_that_both_are_done_together() -> None:
    assert sorted(assign_split([100, 20], [[0, 1], [0]], [0.0, 0.0], equal(2, 10.0, 10.0))[0]) == [
        (0, 40),
        (1, 60),
    ]


def test_what_is_handed_on_goes_on_from_there() -> None:
    parts = assign_split([300, 90, 90], [[0], [0, 1], [1, 2]], [0.0] * 3, equal(3, 0.0, 1.0))
    assert parts[1] == [(1, 90)]
    assert parts[2] == [(2, 90)]


def test_a_slow_or_busy_service_is_given_less() -> None:
    assert assign_split([90], [[0, 1]], [0.0, 0.0], Speeds([0.0, 0.0], [1.0, 2.0]))[0] == [
        (0, 60),
        (1, 30),
    ]
    assert assign_split([90], [[0, 1]], [0.0, 50.0], equal(2, 0.0, 1.0))[0] == [(0, 70), (1, 20)]
    assert assign_split([90], [[0, 1]], [0.0, 90.0], equal(2, 0.0, 1.0))[0] == [(0, 90)]


def test_nothing_is_handed_on_before_the_layer_could_be_done() -> None:
    frame = ([100, 20], [[0, 1], [0]], [0.0, 0.0], equal(2, 10.0, 10.0))
    assert assign_split(*frame, until_nanos=1010.0) == [[(1, 100)], [(0, 20)]]
    assert len(assign_split(*frame, until_nanos=1000.0)[0]) == 2


def test_a_busy_service_that_is_given_nothing_hinders_nobody() -> None:
    parts = assign_split([100], [[0, 1]], [0.0, 0.0, 10.0**9], equal(3, 10.0, 10.0))
    assert sorted(parts[0]) == [(0, 50), (1, 50)]


def test_of_equal_replicas_the_preferred_one_is_taken() -> None:
    speeds = equal(3, 10.0, 0.0)
    assert assign_split([1], [[2, 0]], [0.0] * 3, speeds) == [[(2, 1)]]
    assert assign_split([1], [[0, 2]], [0.0] * 3, speeds) == [[(0, 1)]]
