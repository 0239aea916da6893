"""Whether a placement is valid, by what the services say that they host."""

from collections.abc import Iterable

from bench.hosting.truth import Faults, Hosting, faults_of
from moesaic.v1 import expert_pb2

KEYS = [(1, 0), (1, 1)]
READY, RETIRING = expert_pb2.EXPERT_STATE_READY, expert_pb2.EXPERT_STATE_RETIRING


def hosting(
    keys: Iterable[tuple[int, int]],
    *,
    state: "expert_pb2.ExpertState.ValueType" = READY,
    content: bytes = b"",
) -> Hosting:
    experts = [
        expert_pb2.HostedExpert(
            layer=layer, expert=expert, state=state, content_hash=content or bytes([expert])
        )
        for layer, expert in keys
    ]
    return Hosting(experts=experts)


def faults(*hostings: Hosting, max_experts: int = 2) -> Faults:
    return faults_of(
        {f"expert-{number}": one for number, one in enumerate(hostings)}, KEYS, max_experts
    )


def test_a_whole_placement_has_no_faults() -> None:
    assert faults(hosting(KEYS), hosting(KEYS[:1])) == Faults([], [])


def test_an_expert_that_nobody_has_ready_is_lost() -> None:
    assert faults(hosting(KEYS[:1])).lost == [(1, 1)]
    assert faults(hosting(KEYS[:1]), hosting(KEYS[1:], state=RETIRING)).lost == [(1, 1)]


def test_an_expert_that_stays_on_its_way_is_invalid() -> None:
    assert faults(hosting(KEYS), hosting(KEYS[:1], state=RETIRING)).invalid == [
        "expert-1 leaves (1, 0) in EXPERT_STATE_RETIRING"
    ]


def test_an_expert_twice_on_one_service_is_invalid() -> None:
    assert faults(hosting([(1, 0), (1, 0)]), hosting(KEYS)).invalid == [
        "expert-0 hosts (1, 0) twice"
    ]


def test_more_experts_than_the_memory_has_room_for_are_invalid() -> None:
    assert faults(hosting(KEYS), max_experts=1).invalid == [
        "expert-0 hosts 2 experts and has memory for 1"
    ]


def test_an_expert_that_the_model_does_not_have_is_invalid() -> None:
    assert faults(hosting(KEYS), hosting([(9, 9)])).invalid == [
        "expert-1 hosts (9, 9), which there is not"
    ]


def test_replicas_with_other_content_are_invalid() -> None:
    assert faults(hosting(KEYS), hosting(KEYS[:1], content=b"other")).invalid == [
        "replicas of (1, 0) differ"
    ]
