"""The parts of a step are a partition of its time."""

from services.router.peers.frame_deadline import FrameDeadline
from services.router.times.receipt import ReplyTimes, SequenceReceipt, StepClock
from tests.router.paces import nanos_given


def test_a_clock_charges_every_nanosecond_to_some_part() -> None:
    clock = StepClock()
    clock.charge("dense")
    clock.charge("gate")
    ended = clock.charge("sampling")
    assert clock.parts.total() == ended - clock.started


def test_a_part_may_have_ended_before_it_is_charged() -> None:
    clock = StepClock()
    dense_ended = clock.charge("dense", nanos_ago=0)
    while StepClock.now() < dense_ended + 2_000:
        pass
    gate_began = clock.charge("dense", nanos_ago=1_000)
    ended = clock.charge("gate")
    assert clock.parts.gate == ended - gate_began >= 1_000
    assert clock.parts.total() == ended - clock.started


def test_a_gather_is_split_at_the_first_and_the_last_reply() -> None:
    clock = StepClock()
    sent = clock.charge("encode")
    fast = ReplyTimes("a:1", sent, sent + 1_000, server_queue=200, server_compute=300)
    slow = ReplyTimes("b:1", sent, sent + 5_000, server_queue=0, server_compute=4_500)
    while StepClock.now() < slow.arrived:
        pass
    ended = clock.charge_gather([slow, fast])
    parts = clock.parts
    assert (parts.expert_queue, parts.expert_compute, parts.wire) == (200, 300, 500)
    assert parts.straggler_wait == 4_000
    assert parts.lane_wait == ended - slow.arrived
    assert parts.total() == ended - clock.started


def test_the_wait_for_a_lost_service_is_the_stragglers_and_never_lane_wait() -> None:
    clock = StepClock()
    sent = clock.charge("encode")
    reply = ReplyTimes("a:1", sent, sent + 1_000, server_queue=0, server_compute=0)
    while StepClock.now() < sent + 5_000:
        pass
    ended = clock.charge_gather([reply], has_losses=True)
    assert clock.parts.lane_wait == 0
    assert clock.parts.straggler_wait == ended - reply.arrived
    assert clock.parts.total() == ended - clock.started


def test_own_work_hides_the_part_of_the_wait_that_it_covers() -> None:
    clock = StepClock()
    sent = clock.charge("encode")
    while StepClock.now() < sent + 2_000:
        pass
    clock.charge("dense")
    reply = ReplyTimes("a:1", sent, sent + 1_000, server_queue=0, server_compute=900)
    ended = clock.charge_gather([reply])
    assert clock.parts.wire == clock.parts.expert_compute == 0
    assert clock.parts.total() == ended - clock.started


def test_wire_is_the_round_trip_less_the_services_own_time_and_never_negative() -> None:
    assert ReplyTimes("a", 100, 1_100, 200, 300).wire == 500
    assert ReplyTimes("a", 100, 300, 200, 300).wire == 0


def test_a_sequence_is_charged_for_its_steps_and_the_waits_between_them() -> None:
    receipt = SequenceReceipt()
    for prefill in (True, False, False):
        clock = StepClock()
        receipt.enter_step(clock, prefill=prefill)
        clock.charge("dense")
        receipt.leave_step(clock, prefill=prefill)
    assert (receipt.prefill.steps, receipt.decode.steps) == (1, 2)
    total = receipt.prefill.parts.total() + receipt.decode.parts.total()
    assert 0 < total <= receipt.elapsed()


def test_a_sequence_counts_the_frames_that_its_steps_sent_again() -> None:
    receipt = SequenceReceipt()
    for reasons in ([], ["broken", "broken", "overloaded"], ["expired"]):
        clock = StepClock()
        for reason in reasons:
            clock.retries["a:1", reason] += 1
        receipt.leave_step(clock, prefill=False)
    assert receipt.retries == 4


def test_a_frames_deadline_has_a_floor_and_grows_with_the_fitted_time() -> None:
    deadline = FrameDeadline(floor_seconds=0.001, factor=10, smoothing=1.0)
    assert nanos_given(deadline, 8) == 1_000_000
    deadline.observe(4, round_trip_nanos=4_000_000)
    assert nanos_given(deadline, 8) == 80_000_000


def test_a_frames_deadline_is_fitted_by_frames_of_its_size() -> None:
    deadline = FrameDeadline(floor_seconds=0.001, factor=10, smoothing=1.0)
    deadline.observe(1, round_trip_nanos=1_000_000)
    deadline.observe(1024, round_trip_nanos=2_048_000)
    assert nanos_given(deadline, 1) == 10_000_000
    assert nanos_given(deadline, 2000) == 40_000_000
