"""Experts are spread evenly, as memory allows, with few moves; what must not be carried out is
refused.
"""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.planning.goals import Even, Goal, WantedHosting, Without
from services.router.planning.host import Host
from services.router.planning.moves import next_changes
from services.router.planning.target_check import check_target
from services.router.planning.targets import (
    Target,
    even_target,
    missing_replicas,
    without,
)
from services.wire.errors import BadState, NotFound, Overloaded, ServingError
from services.wire.expert_key import ExpertKey
from tests.router.hosting.drawn_clusters import clusters

NUM_LAYERS, NUM_EXPERTS = 3, 8
EXPERTS = [ExpertKey(layer, expert) for layer in range(NUM_LAYERS) for expert in range(NUM_EXPERTS)]
ALL = frozenset(EXPERTS)
SMALL = (ExpertKey(0, 0), ExpertKey(0, 1))


def in_layers(keys: set[ExpertKey] | list[ExpertKey]) -> list[int]:
    return [sum(key[0] == layer for key in keys) for layer in range(NUM_LAYERS)]


def num_moves(hosts: list[Host], target: Target) -> int:
    return sum(len(target[host.address] - host.hosted) for host in hosts)


def test_equal_services_get_equal_shares_of_every_layer() -> None:
    loads = missing_replicas(EXPERTS, [Host("a", 100), Host("b", 100)], 1).loads
    assert [in_layers(keys) for keys in loads.values()] == [[4, 4, 4], [4, 4, 4]]


def test_a_small_service_gets_what_fits_without_its_transfer_slot() -> None:
    loads = missing_replicas(EXPERTS, [Host("a", 100), Host("small", 3)], 1).loads
    assert {address: len(keys) for address, keys in loads.items()} == {"a": 22, "small": 2}


def test_a_first_replica_takes_a_transfer_slot_where_it_must_and_a_second_never_does() -> None:
    hosts = [Host("a", 1, {SMALL[0]}), Host("b", 1)]
    assert missing_replicas(SMALL, hosts, 2).loads == {"b": [SMALL[1]]}
    assert missing_replicas(SMALL, hosts, 2).num_uncovered == 2
    assert missing_replicas(SMALL[:1], [Host("a", 1, {SMALL[0]}), Host("b", 1)], 2).loads == {
        "b": [SMALL[0]]
    }


@pytest.mark.parametrize("coverage", [1, 2])
@pytest.mark.parametrize("num_slots", [3, 14, 24, 30])
def test_who_alone_can_take_what_was_lost_is_given_it_as_if_there_were_others(
    num_slots: int, coverage: int
) -> None:
    leaving = Host("leaving", 30, frozenset(EXPERTS[4:9]), is_draining=True)
    left = Host("left", num_slots, frozenset(EXPERTS[:3]), retiring=frozenset(EXPERTS[20:21]))
    full = Host("full", 1, loading=frozenset(EXPERTS[12:13]))
    alone = missing_replicas(EXPERTS, [leaving, left, replace(full, takes=False)], coverage)
    among_others = missing_replicas(EXPERTS, [leaving, left, full], coverage)
    assert (alone.loads, alone.num_uncovered) == (among_others.loads, among_others.num_uncovered)
    assert bool(alone.loads) is (num_slots > 4)


def test_first_replicas_come_before_second_ones_and_the_lost_before_the_leaving() -> None:
    lost, leaving, single = EXPERTS[:3]
    hosts = [Host("a", 9, {leaving}, is_draining=True), Host("b", 9, {single}), Host("c", 9)]
    missing = missing_replicas([leaving, single, lost], hosts, 2)
    assert missing.loads["c"][-1] == single
    firsts = [keys[0] for keys in missing.loads.values()]
    assert sorted(firsts) == sorted([lost, leaving])
    only_c = missing_replicas(
        [leaving, single, lost], [*hosts[:1], replace(hosts[1], takes=False), hosts[2]], 2
    )
    assert only_c.loads == {"c": [lost, leaving, single]}


def test_what_is_being_loaded_is_not_loaded_again() -> None:
    hosts = [Host("a", 9, loading=set(SMALL)), Host("b", 9)]
    assert missing_replicas(SMALL, hosts, 1).loads == {}


def test_what_is_retiring_is_loaded_elsewhere_or_waited_for() -> None:
    retiring = Host("a", 9, retiring={SMALL[0]})
    assert missing_replicas(SMALL[:1], [retiring, Host("b", 9)], 1).loads == {"b": [SMALL[0]]}
    alone = missing_replicas(SMALL[:1], [retiring], 1)
    assert (alone.loads, alone.num_uncovered, alone.shortage) == ({}, 1, None)


def test_too_little_memory_is_named_and_what_fits_is_given() -> None:
    missing = missing_replicas(EXPERTS, [Host("a", 10), Host("b", 5)], 1)
    assert {address: len(keys) for address, keys in missing.loads.items()} == {"a": 10, "b": 5}
    assert str(missing.shortage) == (
        "too little expert memory in the cluster: 9 experts find no place, 2 services that take "
        "experts have memory "
        "for 15; raise expert_memory or add services"
    )


def test_the_order_of_the_services_does_not_matter() -> None:
    hosts = [Host("a", 20, set(EXPERTS[:3])), Host("b", 20), Host("c", 20)]
    assert missing_replicas(EXPERTS, hosts, 2) == missing_replicas(EXPERTS, hosts[::-1], 2)
    assert even_target(EXPERTS, hosts, 2) == even_target(EXPERTS, hosts[::-1], 2)


@given(clusters(EXPERTS), st.integers(1, 3))
def test_missing_replicas_fit_and_are_never_two_on_one_service(
    hosts: list[Host], coverage: int
) -> None:
    missing = missing_replicas(EXPERTS, hosts, coverage)
    by_address = {host.address: host for host in hosts}
    replicas = Counter(
        key for host in hosts if not host.is_draining for key in host.hosted | host.loading
    )
    firsts = {key for key in EXPERTS if not replicas[key]}
    for address, keys in missing.loads.items():
        host = by_address[address]
        assert host.takes and not host.is_draining
        assert len(keys) == len(set(keys)) <= host.num_free
        assert not set(keys) & (host.hosted | host.loading | host.retiring)
        num_further = sum(key not in firsts for key in keys)
        assert num_further == 0 or len(keys) < host.num_free or host.num_slots >= len(EXPERTS)
        replicas.update(keys)
    assert all(replicas[key] <= coverage for keys in missing.loads.values() for key in keys)
    assert missing.num_uncovered == sum(replicas[key] < coverage for key in EXPERTS)
    retiring = {key for host in hosts for key in host.retiring}
    assert (missing.shortage is None) == all(replicas[key] or key in retiring for key in EXPERTS)


@given(clusters(EXPERTS), st.integers(1, 3))
def test_an_even_target_fits_serves_everything_and_stays_as_it_is(
    hosts: list[Host], coverage: int
) -> None:
    hosts = [replace(host, takes=True) for host in hosts]
    used = [host for host in hosts if not host.is_draining]
    if sum(min(host.num_slots, len(EXPERTS)) for host in used) < len(EXPERTS):
        with pytest.raises(Overloaded, match="too little expert memory"):
            even_target(EXPERTS, hosts, coverage)
        return
    target = even_target(EXPERTS, hosts, coverage)
    assert all(len(target[host.address]) <= host.num_slots for host in hosts)
    assert all(not target[host.address] for host in hosts if host.is_draining)
    replicas = Counter(key for keys in target.values() for key in keys)
    room = sum(
        len(EXPERTS) if host.num_slots >= len(EXPERTS) else host.num_slots - 1 for host in used
    )
    most = min(coverage, len(used)) * len(EXPERTS)
    assert sum(replicas.values()) == (min(room, most) if room >= len(EXPERTS) else len(EXPERTS))
    assert all(0 < replicas[key] <= coverage for key in EXPERTS)
    assert max(replicas.values()) - min(replicas.values()) <= 1
    for keys in target.values():
        assert max(in_layers(keys)) - min(in_layers(keys)) <= 1
    there = [Host(host.address, host.num_slots, target[host.address]) for host in used]
    assert num_moves(there, even_target(EXPERTS, there, coverage)) == 0


@given(st.integers(1, 5), st.sampled_from([5, 17, 100]))
def test_what_was_spread_evenly_at_the_start_is_not_moved(num_hosts: int, num_slots: int) -> None:
    hosts = [Host(str(index), num_slots) for index in range(num_hosts)]
    loads = missing_replicas(EXPERTS, hosts, 1).loads
    hosts = [replace(host, hosted=frozenset(loads[host.address])) for host in hosts]
    if sum(len(keys) for keys in loads.values()) == len(EXPERTS):
        assert num_moves(hosts, even_target(EXPERTS, hosts, 1)) == 0


def test_what_a_lost_service_leaves_falls_to_all_others_alike() -> None:
    hosts = [Host(name, 100) for name in "abcd"]
    for placed in (missing_replicas(EXPERTS, hosts, 2).loads, even_target(EXPERTS, hosts, 2)):
        common = [
            len(set(placed[one]) & set(placed[other])) for one, other in combinations("abcd", 2)
        ]
        assert sum(common) == len(EXPERTS)
        assert max(common) - min(common) <= 2


@pytest.mark.parametrize("coverage", [1, 2])
def test_a_service_that_joins_is_given_its_share_and_nothing_else_moves(coverage: int) -> None:
    hosts = [Host(name, 100) for name in "abc"]
    target = even_target(EXPERTS, hosts, coverage)
    hosts = [replace(host, hosted=target[host.address]) for host in hosts] + [Host("d", 100)]
    joined = even_target(EXPERTS, hosts, coverage)
    share = len(EXPERTS) * coverage // 4
    assert {address: len(keys) for address, keys in joined.items()} == dict.fromkeys("abcd", share)
    assert num_moves(hosts, joined) == share


@pytest.mark.parametrize("coverage", [1, 2])
def test_a_service_that_drains_gives_its_share_and_nothing_else_moves(coverage: int) -> None:
    target = even_target(EXPERTS, [Host(name, 100) for name in "abcd"], coverage)
    hosts = [Host(name, 100, target[name]) for name in "abcd"]
    left = even_target(EXPERTS, [replace(hosts[0], is_draining=True), *hosts[1:]], coverage)
    # A few more where a service hosts too much already of what the one that leaves has.
    assert len(target["a"]) <= num_moves(hosts, left) <= len(target["a"]) + coverage
    assert without("a", EXPERTS, hosts, coverage)["a"] == set()
    assert num_moves(hosts, without("a", EXPERTS, hosts, coverage)) == len(target["a"])
    check_target(without("a", EXPERTS, hosts, coverage), EXPERTS, hosts, coverage)


def test_even_is_refused_while_a_service_takes_no_experts() -> None:
    with pytest.raises(BadState, match="b takes no experts at present"):
        even_target(EXPERTS, [Host("a", 100, ALL), Host("b", 100, takes=False)], 1)


def test_a_drain_that_leaves_too_little_memory_is_refused() -> None:
    with pytest.raises(Overloaded, match="14 experts find no place"):
        without("a", EXPERTS, [Host("a", 100, ALL), Host("b", 10)], 1)
    with pytest.raises(BadState, match="there is no expert service c"):
        without("c", EXPERTS, [Host("a", 100, ALL)], 1)


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ({"a": ALL, "c": set()}, BadState, "there is no expert service c"),
        (
            {"a": ALL, "b": {(3, 0)}},
            NotFound,
            "the model has no expert 0 of layer 3, which b is to host",
        ),
        ({"a": ALL - {(1, 7)}}, BadState, "expert 7 of layer 1 would be on no service"),
        ({"a": ALL, "leaving": {(0, 0)}}, BadState, "leaving is draining"),
        (
            {"a": ALL, "other": {(0, 0)}},
            BadState,
            "other has read another checkpoint: it cannot host expert 0 of layer 0",
        ),
        (
            {"a": ALL, "small": set(EXPERTS[:3])},
            Overloaded,
            "small is to host 3 experts; it has memory for 2",
        ),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_target_that_cannot_be_is_refused_even_when_forced(
    target: Target, error: type[ServingError], said: str, force: bool
) -> None:
    hosts = [
        Host("a", 24, ALL),
        Host("b", 24),
        Host("small", 2),
        Host("leaving", 9, is_draining=True),
        Host("other", 9, refused={ExpertKey(0, 0)}),
    ]
    with pytest.raises(error, match=said):
        check_target(target, EXPERTS, hosts, 1, force=force)


@pytest.mark.parametrize(
    "target",
    [
        {"a": ALL, "gone": {(0, 0)}},
        {"a": ALL, "leaving": {(0, 0)}},
        {"a": ALL, "other": {(0, 0)}},
        {"a": ALL, "small": set(EXPERTS[:3])},
        {"a": ALL - {(1, 7)}},
    ],
    ids=["gone", "leaving", "other weights", "small", "on no service"],
)
def test_a_reason_has_one_status_and_one_text_before_an_operation_and_during_it(
    target: Target,
) -> None:
    hosts = [
        Host("a", 24, ALL),
        Host("small", 2),
        Host("leaving", 9, is_draining=True),
        Host("other", 9, refused={ExpertKey(0, 0)}),
    ]
    with pytest.raises(ServingError) as before:
        check_target(target, EXPERTS, hosts, 1)
    with pytest.raises(ServingError) as during:
        next_changes(hosts, target)
    assert type(before.value) is type(during.value)
    assert str(before.value) == str(during.value)


@pytest.mark.parametrize("goal", [Even(), Without("b")])
def test_too_little_memory_has_one_status_whoever_finds_it(goal: Goal) -> None:
    hosts = [Host("a", 10, set(EXPERTS[:10])), Host("b", 10, set(EXPERTS[10:20]))]
    missing = missing_replicas(EXPERTS, hosts, 1)
    with pytest.raises(Overloaded, match="too little expert memory"):
        goal.target(hosts, WantedHosting(EXPERTS, 1))
    assert isinstance(missing.shortage, Overloaded)


def test_a_target_below_the_coverage_is_refused_unless_forced() -> None:
    hosts, target = [Host("a", 24, ALL), Host("b", 24)], {"a": set(ALL), "b": set(EXPERTS[:22])}
    with pytest.raises(
        BadState, match="expert 6 of layer 2 and 1 others would have fewer than 2 replicas"
    ):
        check_target(target, EXPERTS, hosts, 2)
    check_target(target, EXPERTS, hosts, 2, force=True)
    check_target(target, EXPERTS, hosts, 1)
