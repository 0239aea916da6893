"""A plan keeps to memory and coverage whatever it starts from, moves little, and says why."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.load.load import ExpertLoad
from services.router.planning.balanced import Balanced
from services.router.planning.costs import Costs
from services.router.planning.eplb import Eplb
from services.router.planning.goals import WantedHosting
from services.router.planning.host import Host
from services.router.planning.moves import next_changes
from services.router.planning.plan import Plan, plan
from services.router.planning.static import Static
from services.router.planning.strategy import Strategy
from services.router.planning.target_check import check_target
from services.router.planning.targets import Target, even_target
from services.wire.errors import BadState, Overloaded
from services.wire.expert_key import ExpertKey
from tests.router.hosting.drawn_clusters import clusters

NUM_LAYERS, NUM_EXPERTS = 3, 8
LAYERS = (1, 2, 5)  # those with experts need not be all
EXPERTS = [ExpertKey(layer, expert) for layer in LAYERS for expert in range(NUM_EXPERTS)]
STRATEGIES: list[Strategy] = [Balanced(), Balanced(least_gain=0.0), Eplb()]
PAIRS_ALONE = (0.0, 0.0, 100.0)  # nanoseconds: fixed, for each expert, for each pair


def load_of(tokens: list[list[float]]) -> ExpertLoad:
    """With every expert active that has tokens at all."""
    array = np.array(tokens)
    return ExpertLoad(array, (array > 0).astype(np.float64))


def skewed(hot: int) -> ExpertLoad:
    """One expert of each layer has as many pairs as all others together."""
    tokens = np.ones((NUM_LAYERS, NUM_EXPERTS))
    tokens[:, hot] = NUM_EXPERTS - 1
    return load_of(tokens.tolist())


def hosting(hosts: list[Host], target: Target) -> list[Host]:
    return [replace(host, hosted=frozenset(target[host.address])) for host in hosts]


def even_hosts(num_services: int, num_slots: int) -> list[Host]:
    """Services that host every expert once, spread evenly."""
    hosts = [Host(f"host{index}", num_slots) for index in range(num_services)]
    return hosting(hosts, even_target(EXPERTS, hosts, 1))


def planned(load: ExpertLoad, hosts: list[Host], strategy: Strategy, coverage: int = 1) -> Plan:
    return plan(
        load,
        hosts,
        Costs.equal(len(hosts), *PAIRS_ALONE),
        WantedHosting(EXPERTS, coverage),
        strategy,
    )


def num_replicas(target: Target) -> Counter[ExpertKey]:
    return Counter(key for keys in target.values() for key in keys)


@st.composite
def loads(draw: st.DrawFn) -> ExpertLoad:
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    tokens = np.maximum(
        0, rng.pareto(1.0, (NUM_LAYERS, NUM_EXPERTS)) - draw(st.sampled_from([0.0, 0.5]))
    )
    return ExpertLoad(tokens, np.minimum(1.0, tokens))


@st.composite
def costs(draw: st.DrawFn, num_services: int) -> Costs:
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return Costs(*(rng.uniform(0, 10, (3, num_services)) * draw(st.sampled_from([0.0, 1.0]))))


def fits(hosts: list[Host]) -> bool:
    """Whether the services can host every expert once, transfer slots used if need be."""
    used = [host for host in hosts if not host.is_draining]
    frozen = set().union(*(host.hosted | host.loading for host in used if not host.takes))
    return sum(host.num_slots for host in used if host.takes) >= len(set(EXPERTS) - frozen)


def assert_holds(hosts: list[Host], target: Target, coverage: int, *, strict: bool = True) -> None:
    """Within memory, the transfer slot kept but for what had it, and nothing worse covered than
    before.
    """
    check_target(target, EXPERTS, hosts, coverage, force=True)
    replicas = num_replicas(target)
    before = Counter(
        key for host in hosts if not host.is_draining for key in host.hosted | host.loading
    )
    for host in hosts:
        there = host.hosted | host.loading
        if host.is_draining:
            assert target[host.address] == set()
        elif not host.takes:
            assert target[host.address] == there
    homeless = sum(not before[key] for key in EXPERTS)
    over = sum(
        max(0, len(target[host.address]) - max(host.num_slots - 1, len(host.hosted | host.loading)))
        for host in hosts
        if host.num_slots < len(EXPERTS)
    )
    assert over <= homeless
    if strict:
        assert all(replicas[key] >= min(before[key], coverage) for key in EXPERTS) or homeless


@settings(max_examples=100)
@given(clusters(EXPERTS), loads(), st.integers(1, 3), st.sampled_from(STRATEGIES), st.data())
def test_a_plan_is_within_memory_and_loses_nothing(
    hosts: list[Host], load: ExpertLoad, coverage: int, strategy: Strategy, data: st.DataObject
) -> None:
    costs_of = data.draw(costs(len(hosts)))
    if not fits(hosts):
        with pytest.raises(Overloaded, match="too little expert memory"):
            plan(load, hosts, costs_of, WantedHosting(EXPERTS, coverage), strategy)
        return
    made = plan(load, hosts, costs_of, WantedHosting(EXPERTS, coverage), strategy)
    assert_holds(hosts, made.target, coverage, strict=isinstance(strategy, Balanced))
    assert made.reason


@settings(max_examples=60)
@given(
    st.integers(2, 5),
    st.integers(0, 20),
    st.integers(1, 2),
    loads(),
    loads(),
    st.sampled_from(STRATEGIES),
)
def test_every_plan_can_be_carried_out_within_memory_with_every_expert_ready_throughout(
    num_services: int,
    num_spare: int,
    coverage: int,
    first: ExpertLoad,
    second: ExpertLoad,
    strategy: Strategy,
) -> None:
    num_slots = -(-(len(EXPERTS) * coverage + num_spare) // num_services) + 1
    hosts = even_hosts(num_services, num_slots)
    for load in (first, second):
        target = planned(load, hosts, strategy, coverage).target
        check_target(target, EXPERTS, hosts, coverage)
        assert max(map(len, target.values())) < num_slots or num_slots >= len(EXPERTS)
        hosts = carried_out(hosts, target)
        assert {host.address: set(host.hosted) for host in hosts} == target


def carried_out(hosts: list[Host], target: Target) -> list[Host]:
    """Change by change, as the mover does."""
    while (changes := next_changes(hosts, target)).num_left:
        hosted = {host.address: set(host.hosted) for host in hosts}
        for address, keys in changes.loads.items():
            hosted[address] |= set(keys)
        assert all(len(hosted[host.address]) <= host.num_slots for host in hosts)
        for address, keys in changes.unloads.items():
            hosted[address] -= set(keys)
        hosts = hosting(hosts, hosted)
        assert num_replicas(hosted).keys() == set(EXPERTS)
    return hosts


def test_a_hot_expert_is_replicated_until_the_services_are_even() -> None:
    hosts = even_hosts(4, 13)
    made = planned(skewed(3), hosts, Balanced())
    even = (2 * NUM_EXPERTS - 2) * 100 / 4
    assert made.before.mean() == pytest.approx(8 * 100, rel=0.1)
    assert made.after.mean() == pytest.approx(even, rel=0.05)
    assert made.gain_nanos == pytest.approx(sum(move.gain_nanos for move in made.moves), rel=1e-6)
    assert all(move.gain_nanos > 0 and "takes longest" in move.why for move in made.moves)


def test_moves_and_unloads_are_the_way_from_what_is_hosted_to_the_target() -> None:
    hosts = carried_out(even_hosts(4, 8), planned(skewed(3), even_hosts(4, 8), Balanced()).target)
    for strategy in STRATEGIES:
        made = planned(skewed(5), hosts, strategy)
        hosted = {host.address: set(host.hosted) for host in hosts}
        for move in made.moves:
            hosted[move.target].add(ExpertKey(move.layer, move.expert))
            if move.source is not None:
                hosted[move.source].remove(ExpertKey(move.layer, move.expert))
        for unload in made.unloads:
            hosted[unload.address].remove(ExpertKey(unload.layer, unload.expert))
        assert hosted == made.target
        assert made.moves


def test_nothing_is_moved_when_the_services_are_even_and_full() -> None:
    made = planned(load_of([[1.0] * NUM_EXPERTS] * NUM_LAYERS), even_hosts(4, 7), Balanced())
    assert (made.moves, made.unloads) == ((), ())
    assert "no further move" in made.reason


def test_memory_that_is_left_makes_room_for_steps_that_differ_from_the_mean_one() -> None:
    made = planned(load_of([[1.0] * NUM_EXPERTS] * NUM_LAYERS), even_hosts(4, 10), Balanced())
    assert made.moves
    assert all(move.source is None for move in made.moves)
    assert (made.after < made.before).all()


def test_under_one_load_plans_soon_come_to_rest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        load, hosts = load_of(rng.pareto(1.0, (NUM_LAYERS, NUM_EXPERTS)).tolist()), even_hosts(4, 9)
        num_moves = []
        for _ in range(4):
            made = planned(load, hosts, Balanced())
            num_moves.append(len(made.moves))
            hosts = hosting(hosts, made.target)
        assert num_moves[-1] == 0
        assert sum(num_moves[1:]) <= 6


def test_only_moves_that_gain_enough_are_made() -> None:
    hosts = even_hosts(4, 10)
    most = planned(skewed(3), hosts, Balanced(least_gain=0.0))
    some = planned(skewed(3), hosts, Balanced(least_gain=0.2))
    none = planned(skewed(3), hosts, Balanced(least_gain=10.0))
    mean = (2 * NUM_EXPERTS - 2) * 100 / 4
    assert len(most.moves) >= len(some.moves) > len(none.moves) == 0
    assert all(move.gain_nanos >= 0.2 * mean for move in some.moves)


def test_no_more_is_moved_at_a_time_than_allowed() -> None:
    for most in range(5):
        made = planned(skewed(3), even_hosts(4, 10), Balanced(max_moves=most))
        assert len(made.moves) == most
        assert ("no more moves are allowed" in made.reason) == (
            most == 0 or len(made.moves) == most
        )


def test_memory_goes_to_the_layers_that_gain_by_it() -> None:
    load = load_of([[1.0] * NUM_EXPERTS, [1.0] * NUM_EXPERTS, [20.0] + [1.0] * (NUM_EXPERTS - 1)])
    made = planned(load, even_hosts(4, 8), Balanced(max_moves=3))
    assert [move.layer for move in made.moves] == [LAYERS[2]] * 3


def test_a_slow_service_is_given_less_to_do() -> None:
    hosts = even_hosts(4, 13)
    slow = Costs(np.zeros(4), np.zeros(4), np.array([100.0, 100.0, 100.0, 400.0]))
    made = plan(
        load_of([[1.0] * NUM_EXPERTS] * NUM_LAYERS),
        hosts,
        slow,
        WantedHosting(EXPERTS, 1),
        Balanced(),
    )
    assert made.before.mean() == pytest.approx(2 * 400, rel=0.1)
    assert made.after.mean() == pytest.approx(NUM_EXPERTS * 100 / 3.25, rel=0.1)


def test_with_full_memory_alternating_topics_move_little_and_every_placement_is_valid() -> None:
    hosts = even_hosts(4, 7)
    assert sum(len(host.hosted) for host in hosts) == sum(host.num_slots - 1 for host in hosts)
    num_moves = []
    for turn in range(8):
        made = planned(skewed(turn % 2), hosts, Balanced())
        assert_holds(hosts, made.target, 1)
        hosts = carried_out(hosts, made.target)
        num_moves.append(len(made.moves))
    # The two hot experts end up apart from what else is hot, and that suits both topics.
    assert num_moves[-2:] == [0, 0]


def test_a_spare_replica_gives_way_to_an_expert_without_a_home() -> None:
    first, *rest = EXPERTS[:NUM_EXPERTS]
    one = ExpertLoad(np.ones((1, NUM_EXPERTS)), np.ones((1, NUM_EXPERTS)))
    hosts = [Host("a", 8, frozenset(rest)), Host("b", 8, frozenset(rest))]
    made = plan(
        one,
        hosts,
        Costs.equal(2, *PAIRS_ALONE),
        WantedHosting(EXPERTS[:NUM_EXPERTS], 1),
        Balanced(),
    )
    assert num_replicas(made.target)[first] >= 1
    assert "on no service" in next(move.why for move in made.moves if move.expert == first[1])


def test_experts_of_a_draining_service_go_to_the_others() -> None:
    hosts = even_hosts(4, 10)
    hosts[0] = replace(hosts[0], is_draining=True)
    made = planned(skewed(3), hosts, Balanced())
    assert made.target["host0"] == set()
    assert {
        ExpertKey(move.layer, move.expert) for move in made.moves if move.source == "host0"
    } == hosts[0].hosted


def test_experts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Overloaded, match="too little expert memory"):
        planned(skewed(0), [Host("a", 10), Host("b", 13)], Balanced())
    made = planned(skewed(0), [Host("a", 10), Host("b", 14)], Balanced())
    assert num_replicas(made.target) == dict.fromkeys(EXPERTS, 1)


def test_what_was_stated_is_planned_as_it_is_and_refused_where_it_cannot_be() -> None:
    hosts = even_hosts(2, 24)
    stated = {"host0": set(EXPERTS[:20]), "host1": set(EXPERTS[10:])}
    made = planned(skewed(0), hosts, Static({**stated, "gone": set()}))
    assert made.target == stated
    with pytest.raises(BadState, match="on no service"):
        planned(skewed(0), hosts, Static({"host0": set(EXPERTS[:20])}))


def test_a_load_of_other_experts_is_refused() -> None:
    with pytest.raises(ValueError, match="a load of"):
        planned(
            ExpertLoad(np.ones((2, NUM_EXPERTS)), np.ones((2, NUM_EXPERTS))),
            even_hosts(2, 24),
            Balanced(),
        )
