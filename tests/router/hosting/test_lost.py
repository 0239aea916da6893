"""What was lost, what is back, and that loading gets on."""

import math
from functools import partial

from services.router.dispatch.awaited import Awaited
from services.router.hosting.lost import MAX_READS, Lost
from services.router.planning.order import AWAITED_BYTES
from services.wire.expert_key import ExpertKey

ONE, TWO, THREE = (ExpertKey(0, expert) for expert in range(3))


async def test_what_was_lost_is_counted_until_all_is_back() -> None:
    lost = Lost(Awaited())
    seen = []
    for missing in ([ONE, TWO], [TWO], [TWO, THREE], [THREE], [], [ONE]):
        lost.observe(missing)
        seen.append((lost.num_back, lost.num_lost))
    assert seen == [(0, 2), (1, 2), (1, 3), (2, 3), (0, 0), (0, 1)]


async def test_loading_gets_on_when_one_is_back_or_read_and_by_no_other_experts() -> None:
    awaited = Awaited()
    lost = Lost(awaited)
    lost.observe([ONE, TWO])
    lost.note_read({THREE})
    assert awaited.progressed_at == -math.inf
    lost.note_read({TWO, THREE})
    read_at = awaited.progressed_at
    assert read_at > -math.inf
    awaited.progressed_at = -math.inf
    lost.observe([TWO])
    assert awaited.progressed_at >= read_at


async def test_what_is_read_again_and_again_and_never_back_is_no_progress() -> None:
    awaited = Awaited()
    lost = Lost(awaited)
    lost.observe([ONE])
    got_on = []
    for _ in range(MAX_READS + 1):
        awaited.progressed_at = -math.inf
        lost.note_read([ONE])
        got_on.append(awaited.progressed_at > -math.inf)
    assert got_on == [True] * MAX_READS + [False]
    lost.observe([])
    lost.observe([ONE])
    lost.note_read([ONE])
    assert awaited.progressed_at > -math.inf


async def test_what_is_waited_for_by_several_is_so_until_none_waits_for_it() -> None:
    awaited = Awaited()
    with awaited.wait() as one:
        one.turn_to({ONE, TWO})
        with awaited.wait() as other:
            other.turn_to({TWO})
            one.turn_to({ONE})
            assert set(awaited.experts) == {ONE, TWO}
        assert set(awaited.experts) == {ONE}
    assert not awaited.experts


async def test_until_all_is_back_loads_follow_the_layers_that_requests_have_passed() -> None:
    awaited = Awaited()
    lost = Lost(awaited)
    all_of_two = [ExpertKey(layer, expert) for layer in range(3) for expert in range(2)]
    in_turn = partial(lost.next_batch, all_of_two, AWAITED_BYTES // 2)
    assert in_turn() == all_of_two[:4]  # which nobody has lost
    lost.observe(all_of_two)
    with awaited.wait() as wait:
        wait.turn_to({ExpertKey(1, 1)})
        assert in_turn() == [(1, 1), (1, 0)]
    assert in_turn() == [(2, 0), (2, 1)]
    lost.observe([])
    assert in_turn() == all_of_two[:4]
