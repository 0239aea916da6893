"""The way to a target: no expert is lost, no memory exceeded, and the end is reached, whatever
order things end in.
"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.planning.host import Host
from services.router.planning.moves import Changes, next_changes
from services.router.planning.targets import Target
from services.wire.errors import BadState, Overloaded, ServingError
from services.wire.expert_key import ExpertKey

A, B, C = ExpertKey(0, 0), ExpertKey(0, 1), ExpertKey(0, 2)


class Cluster:
    """Services that load and unload what they are told to, one step at a time; every step is
    checked.
    """

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = {host.address: host for host in hosts}
        self.pending: list[tuple[str, str, tuple[ExpertKey, ...]]] = []
        self.num_begun = 0

    def begin(self, changes: Changes) -> None:
        for address, keys in changes.loads.items():
            host = self.hosts[address]
            assert not host.is_draining and host.takes
            assert not set(keys) & (host.hosted | host.loading | host.retiring), (
                "two replicas on one service"
            )
            self._put("load", replace(host, loading=host.loading | set(keys)), keys)
        for address, keys in changes.unloads.items():
            host = self.hosts[address]
            assert set(keys) <= host.hosted
            self._put(
                "unload",
                replace(host, hosted=host.hosted - set(keys), retiring=host.retiring | set(keys)),
                keys,
            )

    def end(self, index: int, *, fails: bool) -> None:
        kind, address, keys = self.pending.pop(index)
        host = self.hosts[address]
        if kind == "load":
            ready = host.hosted if fails else host.hosted | set(keys)
            self.hosts[address] = replace(host, loading=host.loading - set(keys), hosted=ready)
        else:
            self.hosts[address] = replace(host, retiring=host.retiring - set(keys))

    def ready(self) -> set[ExpertKey]:
        return set[ExpertKey]().union(*(host.hosted for host in self.hosts.values()))

    def _put(self, kind: str, host: Host, keys: list[ExpertKey]) -> None:
        assert keys and host.num_free >= 0, "more than the memory holds"
        self.hosts[host.address] = host
        self.pending.append((kind, host.address, tuple(keys)))
        self.num_begun += len(keys)


@st.composite
def ways(draw: st.DrawFn) -> tuple[list[Host], Target]:
    """Any hosting and any target that leaves one slot free somewhere."""
    num_hosts = draw(st.integers(2, 5))
    names = [str(index) for index in range(num_hosts)]
    num_draining = draw(st.integers(0, min(1, num_hosts - 2)))
    staying = names[num_draining:]
    experts = [
        ExpertKey(layer, expert) for layer in range(2) for expert in range(draw(st.integers(1, 6)))
    ]
    some = st.sets(st.sampled_from(names), min_size=1, max_size=3)
    current = {key: draw(some) for key in experts}
    target = {
        key: draw(st.sets(st.sampled_from(staying), min_size=1, max_size=3)) for key in experts
    }
    hosted = {name: frozenset(key for key in experts if name in current[key]) for name in names}
    wanted = {name: {key for key in experts if name in target[key]} for name in names}
    roomy = draw(st.sampled_from(staying))
    hosts = [
        Host(
            name,
            max(len(hosted[name]), len(wanted[name]) + (name == roomy)) + draw(st.integers(0, 2)),
            hosted[name],
            is_draining=name not in staying,
        )
        for name in names
    ]
    return hosts, wanted


@st.composite
def tight_ways(draw: st.DrawFn) -> tuple[list[Host], Target]:
    """Experts that change places, with one slot to spare in all; a second replica may be in it."""
    num_slots = draw(st.lists(st.integers(1, 2), min_size=2, max_size=5))
    places = [str(index) for index, count in enumerate(num_slots) for _ in range(count)]
    experts = [ExpertKey(0, expert) for expert in range(len(places) - 1)]
    current = draw(st.permutations([*experts, draw(st.sampled_from([*experts, None]))]))
    wanted = draw(st.permutations([*experts, None]))
    hosted, target = (
        {
            place: {key for at, key in zip(places, keys, strict=True) if at == place and key}
            for place in places
        }
        for keys in (current, wanted)
    )
    return [
        Host(str(index), count, hosted[str(index)]) for index, count in enumerate(num_slots)
    ], target


def carry_out(cluster: Cluster, target: Target, data: st.DataObject, *, max_failures: int) -> None:
    ready = cluster.ready()
    num_failures = 0
    while (changes := next_changes(list(cluster.hosts.values()), target, max_batch=3)).num_left:
        cluster.begin(changes)
        assert cluster.pending, "something is left, and nothing is under way"
        index = data.draw(st.integers(0, len(cluster.pending) - 1))
        fails = num_failures < max_failures and data.draw(st.booleans())
        num_failures += fails
        cluster.end(index, fails=fails)
        assert cluster.ready() >= ready, "an expert was lost"
        assert cluster.num_begun < 500, "it goes on for ever"
    assert not changes.loads and not changes.unloads
    assert {name: host.hosted for name, host in cluster.hosts.items()} == target


@settings(max_examples=300)
@given(ways(), st.data())
def test_any_target_is_reached_without_losing_an_expert_or_exceeding_memory(
    way: tuple[list[Host], Target], data: st.DataObject
) -> None:
    hosts, target = way
    carry_out(Cluster(hosts), target, data, max_failures=5)


@settings(max_examples=300)
@given(tight_ways(), st.data())
def test_full_services_that_change_experts_never_wait_for_each_other_for_ever(
    way: tuple[list[Host], Target], data: st.DataObject
) -> None:
    hosts, target = way
    carry_out(Cluster(hosts), target, data, max_failures=3)


def test_full_services_that_wait_for_each_other_make_a_detour() -> None:
    hosts = [Host("a", 1, {A}), Host("b", 1, {B}), Host("c", 1)]
    target: Target = {"a": {B}, "b": {A}, "c": set()}
    cluster = Cluster(hosts)
    steps = []
    while (changes := next_changes(list(cluster.hosts.values()), target)).num_left:
        steps.append((changes.loads, changes.unloads))
        cluster.begin(changes)
        cluster.end(0, fails=False)
        assert cluster.ready() == {A, B}
    assert steps == [
        ({"c": [A]}, {}),
        ({}, {"a": [A]}),
        ({"a": [B]}, {}),
        ({}, {"b": [B]}),
        ({"b": [A]}, {}),
        ({}, {"c": [A]}),
    ]


def test_an_expert_stays_until_all_its_replicas_of_the_target_are_ready() -> None:
    target: Target = {"b": {A}, "c": {A}}
    waiting = next_changes(
        [Host("a", 2, {A}), Host("b", 2, {A}), Host("c", 2, loading={A})], target
    )
    assert (waiting.loads, waiting.unloads, waiting.num_left) == ({}, {}, 2)
    ready = next_changes([Host("a", 2, {A}), Host("b", 2, {A}), Host("c", 2, {A})], target)
    assert (ready.loads, ready.unloads, ready.num_left) == ({}, {"a": [A]}, 1)


def test_an_expert_without_a_replica_is_loaded_before_all_others() -> None:
    changes = next_changes([Host("a", 2, {A}), Host("b", 1)], {"a": {A}, "b": {C}}, max_batch=1)
    assert changes.loads == {"b": [C]}
    changes = next_changes(
        [Host("a", 2, {A, B}), Host("b", 3)], {"a": {A, B}, "b": {A, B, C}}, max_batch=1
    )
    assert changes.loads == {"b": [C]}


def test_an_expert_that_is_retiring_where_it_is_wanted_is_waited_for() -> None:
    changes = next_changes([Host("a", 2, {A}), Host("b", 2, retiring={A})], {"a": {A}, "b": {A}})
    assert (changes.loads, changes.unloads, changes.num_left) == ({}, {}, 1)


def test_a_batch_is_bounded() -> None:
    experts = {ExpertKey(0, expert) for expert in range(10)}
    changes = next_changes(
        [Host("a", 20, experts), Host("b", 20)], {"a": experts, "b": experts}, max_batch=4
    )
    assert {address: len(keys) for address, keys in changes.loads.items()} == {"b": 4}


@pytest.mark.parametrize(
    ("hosts", "target", "error", "lacks"),
    [
        ([Host("a", 2, {A})], {"a": {A}, "b": {A}}, BadState, "there is no expert service b"),
        (
            [Host("a", 2, {A}), Host("b", 2, is_draining=True)],
            {"a": {A}, "b": {A}},
            BadState,
            "b is draining",
        ),
        (
            [Host("a", 2, {A}), Host("b", 2, takes=False)],
            {"a": {A}, "b": {A}},
            BadState,
            "b takes no experts at present",
        ),
        (
            [Host("a", 1, {A})],
            {"a": {A, B}},
            Overloaded,
            "a is to host 2 experts; it has memory for 1",
        ),
        (
            [Host("a", 1, {A}), Host("b", 1, {B})],
            {"a": {B}, "b": {A}},
            Overloaded,
            "no expert service has a free slot",
        ),
        (
            [Host("a", 1, {A}), Host("b", 1, {B})],
            {"b": {B}},
            BadState,
            "expert 0 of layer 0 would be on no service",
        ),
    ],
)
def test_what_cannot_be_reached_is_refused_with_what_lacks(
    hosts: list[Host], target: Target, error: type[ServingError], lacks: str
) -> None:
    with pytest.raises(error, match=lacks):
        next_changes(hosts, target)
