"""When pairs that were not computed are sent again, and to whom: without a clock."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from services.router.dispatch.awaited import Awaited
from services.router.dispatch.failure import FailedPairs, ServiceFailure
from services.router.dispatch.frame_pairs import DROPPED, NOBODY
from services.router.dispatch.placement import Placement, Unhosted
from services.router.dispatch.scatter import Attempt, Outgoing
from services.router.dispatch.unfinished import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, Unfinished
from services.router.engine.sequence import EndReason
from services.wire.errors import BadState
from services.wire.expert_key import ExpertKey
from tests.router.scripted_streams import ScriptedExperts, ScriptedStream, step_of

LAYER, GIVE_UP_AT = 2, 10.0
EXPERTS = np.array([0, 1, 1, 2])  # of two rows
ALL = np.arange(4)


def placement(*hosting: list[int]) -> Placement:
    """Services a, b, … that host these experts of three."""
    services = [
        ScriptedExperts("abc"[index], [ScriptedStream(torch.ones(3, 8))])
        for index in range(len(hosting))
    ]
    return Placement(
        services, {LAYER: np.array([np.isin(np.arange(3), experts) for experts in hosting])}
    )


def unfinished() -> Unfinished:
    return Unfinished(Outgoing(LAYER, torch.ones(2, 8), EXPERTS, None, 2), GIVE_UP_AT)


def failed_by(address: str, positions: np.ndarray = ALL) -> list[FailedPairs]:
    return [FailedPairs(positions, ServiceFailure(address, "broken", f"{address} broke"))]


def sent(attempt: Attempt | None) -> list[tuple[int, int]]:
    """The pairs of an attempt and the service of each."""
    assert attempt is not None
    assigned = attempt.assigned
    positions = np.flatnonzero(assigned.parts != DROPPED)
    assert assigned.experts is None and (assigned.parts[positions] == EXPERTS[positions]).all()
    return [(int(position), int(assigned.owners[EXPERTS[position]])) for position in positions]


def test_another_replica_is_asked_at_once_and_each_pair_once() -> None:
    left = unfinished()
    left.add(failed_by("a", np.array([1, 3])), 1.0)
    both = placement([0, 1, 2], [0, 1, 2])
    assert sent(left.next_attempt(both, 0, 1.0)) == [(1, 1), (3, 1)]
    assert left.next_attempt(both, 0, 1.0) is None
    assert not left.drop_ended(step_of([2]))


def test_pauses_before_the_same_service_is_asked_again_double_up_to_a_limit() -> None:
    left, alone, now, pauses = unfinished(), placement([0, 1, 2]), 1.0, []
    for _ in range(9):
        left.add(failed_by("a"), now)
        assert left.next_attempt(alone, 0, now) is None
        pauses.append(left.seconds_to_wait(now))
        now += pauses[-1] + 1e-9
        assert len(sent(left.next_attempt(alone, 0, now))) == 4
    assert pauses == pytest.approx(
        [min(FIRST_PAUSE_SECONDS * 2**n, MAX_PAUSE_SECONDS) for n in range(9)], rel=1e-3
    )


def test_of_services_that_all_failed_the_latest_is_avoided() -> None:
    left, both = unfinished(), placement([0, 1, 2], [0, 1, 2])
    left.add(failed_by("a"), 1.0)
    left.next_attempt(both, 0, 1.0)
    left.add(failed_by("b"), 2.0)
    assert {service for _, service in sent(left.next_attempt(both, 0, 3.0))} == {0}


def test_experts_with_a_replica_do_not_wait_for_those_without() -> None:
    left, apart = unfinished(), placement([0, 1], [1])
    left.add(failed_by("a"), 1.0)
    assert sent(left.next_attempt(apart, 0, 1.0)) == [(1, 1), (2, 1)]
    assert sent(left.next_attempt(apart, 0, 2.0)) == [(0, 0)]
    assert left.next_attempt(apart, 0, 3.0) is None, "expert 2 is nowhere"
    assert left.seconds_to_wait(3.0) == GIVE_UP_AT - 3.0
    assert [(rows.tolist(), str(error)) for rows, error in left.errors(apart)] == [
        ([1], "expert 2 of layer 2 could not be computed: a broke")
    ]


def test_who_is_placed_anew_is_asked_without_a_pause() -> None:
    left = unfinished()
    left.add(failed_by("a"), 1.0)
    assert left.next_attempt(placement([]), 0, 1.0) is None
    assert {
        service for _, service in sent(left.next_attempt(placement([], [0, 1, 2]), 0, 1.0))
    } == {1}


def test_a_service_without_a_stream_for_the_lane_is_not_asked() -> None:
    left, both = unfinished(), placement([0, 1, 2], [0, 1, 2])
    left.add([FailedPairs(ALL, None)], 1.0)
    lost = ScriptedExperts("b", [])
    made = Placement([both.services[0], lost], both.replicas)
    assert {service for _, service in sent(left.next_attempt(made, 0, 1.0))} == {0}
    left.add([FailedPairs(ALL, None)], 1.0)
    assert left.next_attempt(made, 1, 1.0) is None


def test_after_its_time_a_service_that_failed_is_not_asked_again_but_one_that_did_not_is() -> None:
    left = unfinished()
    left.add(failed_by("a"), 1.0)
    assert left.next_attempt(placement([0, 1, 2]), 0, GIVE_UP_AT) is None
    assert left.seconds_to_wait(GIVE_UP_AT) == 0
    assert len(sent(left.next_attempt(placement([], [0, 1, 2]), 0, GIVE_UP_AT))) == 4


def test_pairs_that_were_never_sent_have_no_failure_to_tell_of() -> None:
    left = unfinished()
    left.add([FailedPairs(np.array([0]), None)], 1.0)
    assert [str(error) for _, error in left.errors(Placement())] == [
        "no live service hosts expert 0 of layer 2"
    ]


def test_what_nobody_could_ever_load_is_given_up_at_once_and_why() -> None:
    left, made = (
        unfinished(),
        replace(placement([0, 1]), unhosted=Unhosted(("a has another checkpoint",), is_final=True)),
    )
    left.add([FailedPairs(ALL, None)], 1.0)
    ((rows, error),) = left.hopeless(made)
    assert rows.tolist() == [1] and isinstance(error, BadState)
    assert (
        str(error) == "nobody hosts expert 2 of layer 2, or can load it: a has another checkpoint"
    )


def test_while_somebody_may_load_it_an_expert_is_waited_for_and_then_what_is_amiss_is_said() -> (
    None
):
    left, made = (
        unfinished(),
        replace(placement([]), unhosted=Unhosted(("a has another checkpoint",))),
    )
    left.add([FailedPairs(np.array([0]), None)], 1.0)
    assert left.hopeless(made) == []
    assert [str(error) for _, error in left.errors(made)] == [
        "no live service hosts expert 0 of layer 2; a has another checkpoint"
    ]


def test_what_nobody_hosts_is_waited_for_as_long_as_loading_gets_on() -> None:
    left, awaited = unfinished(), Awaited()
    left.add(failed_by("a"), 1.0)
    with awaited.wait() as wait:
        left.wait_on(wait, placement([0, 1, 2]), GIVE_UP_AT + 5)
        assert (left.give_up_at, set(awaited.experts)) == (GIVE_UP_AT, set())
        left.wait_on(wait, placement([0, 1]), GIVE_UP_AT + 5)
        assert (left.give_up_at, set(awaited.experts)) == (GIVE_UP_AT + 5, {ExpertKey(LAYER, 2)})
        left.wait_on(wait, placement([0, 1]), GIVE_UP_AT + 1)
        assert left.give_up_at == GIVE_UP_AT + 5
    assert not awaited.experts


@pytest.mark.parametrize(
    ("loading", "state"),
    [({ExpertKey(LAYER, 2): "b:1"}, "is being loaded by b:1"), ({}, "waits to be loaded")],
)
def test_what_is_said_of_an_expert_that_was_lost_is_how_far_its_loading_is(
    loading: dict[ExpertKey, str], state: str
) -> None:
    left = unfinished()
    left.add(failed_by("a"), 1.0)
    made = replace(
        placement([0, 1]), unhosted=Unhosted(loading=loading, num_lost=512, num_back=300)
    )
    assert [str(error) for _, error in left.errors(made)][-1] == (
        f"expert 2 of layer 2 {state}; 300 of 512 that were lost are back, and for long none came"
    )


def test_pairs_of_ended_sequences_are_dropped() -> None:
    left, step = unfinished(), step_of([1, 1])
    left.add(failed_by("a"), 1.0)
    step.batch[0].sequence.end(EndReason.CANCELLED)
    assert left.drop_ended(step)
    attempt = left.next_attempt(placement([], [0, 1, 2]), 0, 1.0)
    assert [position for position, _ in sent(attempt)] == [2, 3]
    assert attempt is not None
    assert attempt.assigned.owners[0] == NOBODY
