"""Whatever happens to a frame, each pair is computed once, and the output has the undisturbed run's
bits.
"""

import asyncio
import gc
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moesaic.v1 import expert_pb2
from services.router.dispatch.combine import (
    Combination,
    ExactCombine,
    PartialCombine,
    Returned,
    Sums,
)
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.placement import Placement
from services.router.engine.sequence import EndReason
from services.router.engine.step import Step
from services.router.peers.frame_lost import FrameLost
from services.wire.errors import InvalidRequest, Unavailable
from services.wire.expert_key import ExpertKey
from services.wire.outcomes import FrameError, PairFailure
from services.wire.received import ReceivedFrame
from tests.router.behaviours import expect_in_order
from tests.router.paces import fitted_pace
from tests.router.scripted_streams import (
    HIDDEN,
    Behaviour,
    RecordedSpans,
    ScriptedExperts,
    ScriptedStream,
    in_turn,
    not_hosted,
    overloaded,
    step_of,
)

pytestmark = pytest.mark.usefixtures("with_and_without_kernels")

UNKNOWN_REASON = cast("expert_pb2.PairFailureReason.ValueType", 77)
LAYER, NUM_EXPERTS, ROWS = 3, 4, 4
SCALE = torch.arange(1.0, NUM_EXPERTS * HIDDEN + 1).view(NUM_EXPERTS, HIDDEN)
INDEX = torch.tensor([[0, 1], [0, 2], [2, 3], [2, 3]])
ROUTING = (
    torch.linspace(-1, 1, ROWS * HIDDEN).view(ROWS, HIDDEN),
    INDEX,
    torch.linspace(0.1, 0.9, 8).view(ROWS, 2),
)
UNDISTURBED = (ROUTING[0][:, None] * SCALE[INDEX] * ROUTING[2][..., None]).sum(1)


def raises(error: Exception) -> Behaviour:
    def behaviour(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        raise error

    return behaviour


def unanswered(frame: ReceivedFrame, rows: torch.Tensor) -> None:
    """Leave the frame without an answer."""


def refused(code: int) -> Behaviour:
    return lambda frame, rows: {"rows": None, "error": FrameError(code, "no")}


def none_computed(reason: "expert_pb2.PairFailureReason.ValueType") -> Behaviour:
    return lambda frame, rows: {
        "rows": None,
        "failures": [PairFailure(reason, tuple(range(len(frame.pair_rows))))],
    }


def not_finite(number: float) -> Behaviour:
    return lambda frame, rows: {"rows": torch.full_like(rows, number)}


BROKEN = raises(FrameLost("the stream broke", "broken"))
NOT_HOSTED, OVERLOADED, EXPIRED, CANCELLED = (
    none_computed(reason)
    for reason in (
        expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED,
        expert_pb2.PAIR_FAILURE_REASON_OVERLOADED,
        expert_pb2.PAIR_FAILURE_REASON_EXPIRED,
        expert_pb2.PAIR_FAILURE_REASON_CANCELLED,
    )
)


class Cluster:
    """Services with a stream each, of which the first is expected to be the fastest, and a
    dispatcher over them.
    """

    def __init__(
        self,
        *behaviours: Behaviour,
        combine: Combination | None = None,
        unserved_seconds: float = 10.0,
    ) -> None:
        self.streams = [ScriptedStream(SCALE, behaviour) for behaviour in behaviours]
        self.services = [
            ScriptedExperts(f"service-{index}", [stream])
            for index, stream in enumerate(self.streams)
        ]
        expect_in_order(service.pace for service in self.services)
        self.dispatcher = Dispatcher(
            num_experts=NUM_EXPERTS,
            hidden_size=HIDDEN,
            wire_dtype=torch.float32,
            combine=combine or ExactCombine(),
            unserved_seconds=unserved_seconds,
        )
        self.place(*range(len(behaviours)))

    def place(self, *hosting: int, tried: Sequence[int] = ()) -> None:
        """Every expert is ready on these services, and on those that are being tried."""
        ready = np.zeros((len(self.services), NUM_EXPERTS), dtype=bool)
        ready[list(hosting)] = True
        everything = {LAYER: np.ones(NUM_EXPERTS, dtype=bool)}
        being_tried = {self.services[one].address: everything for one in tried}
        self.dispatcher.place(
            Placement(self.services, {LAYER: ready}, being_tried=being_tried),
        )

    def know_costs(self) -> None:
        """Pairs alone cost anything, so that they are shared out evenly though experts are split by
        it.
        """
        for service in self.services:
            service.pace = fitted_pace(0, 10**6, frame=0)

    def compute(self, step: Step, meanwhile: Callable[[], None] | None = None) -> Any:
        return self.dispatcher.compute(step, LAYER, *ROUTING, meanwhile)

    @property
    def pairs_asked_for(self) -> list[list[int]]:
        """The pairs in each service's frames."""
        return [[len(frame.pair_rows) for frame in stream.frames] for stream in self.streams]


def assert_well(step: Step, output: torch.Tensor) -> None:
    assert [work.sequence.ending for work in step.batch] == [None] * len(step.batch)
    assert torch.equal(output, UNDISTURBED)


def errors(step: Step) -> list[str | None]:
    return [
        None if work.sequence.ending is None else str(work.sequence.ending.error)
        for work in step.batch
    ]


# What a service does with a frame, and the reason for which it is sent again.
DISTURBANCES: list[tuple[Behaviour, str]] = [
    (BROKEN, "broken"),
    (raises(FrameLost("no answer in time", "deadline")), "deadline"),
    (raises(Unavailable("not connected")), "lost"),
    (refused(13), "refused"),
    (refused(3), "refused"),
    (refused(0), "refused"),
    (refused(7777), "refused"),
    (CANCELLED, "bad_reply"),
    (none_computed(expert_pb2.PAIR_FAILURE_REASON_UNSPECIFIED), "bad_reply"),
    (none_computed(UNKNOWN_REASON), "bad_reply"),
    (not_finite(math.nan), "not_finite"),
    (not_finite(-math.inf), "not_finite"),
    (refused(15), "corrupted"),
    (lambda frame, rows: {"checksum": False}, "corrupted"),
    (lambda frame, rows: {"rows": rows[:-1].contiguous()}, "bad_reply"),
    (lambda frame, rows: {"rows": rows[:, :3].contiguous()}, "bad_reply"),
    (
        lambda frame, rows: {
            "rows": rows[:-1],
            "failures": [not_hosted(99)],
        },
        "bad_reply",
    ),
    (
        lambda frame, rows: {
            "rows": rows[:-1],
            "failures": [not_hosted(0, 0)],
        },
        "bad_reply",
    ),
    (
        lambda frame, rows: {
            "rows": rows[:-1],
            "failures": [
                not_hosted(0),
                overloaded(0),
            ],
        },
        "bad_reply",
    ),
    (NOT_HOSTED, "not_hosted"),
    (OVERLOADED, "overloaded"),
    (EXPIRED, "expired"),
]


@pytest.mark.parametrize(("behaviour", "reason"), DISTURBANCES)
async def test_what_one_service_fails_to_compute_its_replica_computes(
    behaviour: Behaviour, reason: str
) -> None:
    cluster, step = Cluster(behaviour, in_turn()), step_of([2, 2])
    assert_well(step, await cluster.compute(step))
    assert cluster.pairs_asked_for == [[8], [8]]
    assert step.clock.retries == {("service-0", reason): 1}


@pytest.mark.parametrize("combine", [ExactCombine(), PartialCombine()])
async def test_only_the_pairs_that_were_not_computed_are_sent_again(combine: Combination) -> None:
    def some(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        computed = cluster.streams[0].computed(frame, np.array([0, 2, 3, 5, 6, 7]))
        return {
            "rows": computed,
            "failures": [
                not_hosted(1),
                overloaded(4),
            ],
        }

    cluster, step = Cluster(some, in_turn(), combine=combine), step_of([2, 2])
    output = await cluster.compute(step)
    assert cluster.pairs_asked_for == [[8], [2]]
    again = cluster.streams[1].frames[0]
    assert again.pair_experts.tolist() == [1, 2]  # of rows 0 and 2
    assert torch.equal(again.rows(HIDDEN), ROUTING[0][[0, 2]])
    assert again.requests == (0, 1)
    assert [work.sequence.ending for work in step.batch] == [None, None]
    torch.testing.assert_close(output, UNDISTURBED)
    if not combine.sums_on_services:
        assert torch.equal(output, UNDISTURBED)


async def test_of_an_expert_that_is_split_only_the_part_that_was_not_computed_is_sent_again() -> (
    None
):
    cluster, step = Cluster(in_turn(BROKEN), in_turn()), step_of([2, 2])
    cluster.know_costs()
    only_2_on_both = np.array([[True, False, True, False], [False, True, True, True]])
    cluster.dispatcher.place(Placement(cluster.services, {LAYER: only_2_on_both}))
    assert_well(step, await cluster.compute(step))
    asked = [[frame.pair_experts.tolist() for frame in stream.frames] for stream in cluster.streams]
    assert asked == [[[0, 0, 2, 2], [0, 0]], [[1, 3, 2, 3], [2, 2]]]
    assert step.clock.retries == {("service-0", "broken"): 2}


async def test_a_replica_that_dies_too_leaves_the_pairs_to_who_refused_them_before() -> None:
    cluster, step = Cluster(in_turn(OVERLOADED), BROKEN), step_of([2, 2])
    assert_well(step, await cluster.compute(step))
    assert cluster.pairs_asked_for == [[8, 8], [8]]
    assert step.clock.retries == {("service-0", "overloaded"): 1, ("service-1", "broken"): 1}


async def test_every_replica_is_tried_before_one_is_tried_again() -> None:
    cluster, step = Cluster(BROKEN, NOT_HOSTED, in_turn()), step_of([4])
    assert_well(step, await cluster.compute(step))
    assert cluster.pairs_asked_for == [[8], [8], [8]]


async def test_pairs_wait_for_a_replica_when_none_is_left() -> None:
    def dies(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        cluster.place()
        asyncio.get_running_loop().call_later(0.02, cluster.place, 1)
        raise FrameLost("the stream broke", "broken")

    cluster, step = Cluster(dies, in_turn()), step_of([2, 2])
    cluster.place(0)
    assert_well(step, await cluster.compute(step))
    assert cluster.pairs_asked_for == [[8], [8]]


async def test_a_service_that_lost_its_streams_is_asked_for_nothing() -> None:
    cluster, step = Cluster(in_turn()), step_of([4])
    streams, cluster.services[0].streams = cluster.services[0].streams, []

    def come_back() -> None:
        cluster.services[0].streams = streams
        cluster.place(0)

    asyncio.get_running_loop().call_later(0.02, come_back)
    assert_well(step, await cluster.compute(step))
    assert not step.clock.retries, "nothing was sent that could be sent again"


async def test_pairs_that_nobody_serves_in_time_end_only_the_requests_that_need_them() -> None:
    cluster, step = Cluster(in_turn(), unserved_seconds=0.02), step_of([2, 2])
    ready = np.array([[True, False, True, True]])
    cluster.dispatcher.place(Placement(cluster.services, {LAYER: ready}))
    output = await cluster.compute(step)
    assert errors(step) == ["no live service hosts expert 1 of layer 3", None]
    assert torch.equal(output[2:], UNDISTURBED[2:])


async def test_pairs_wait_beyond_that_time_while_loading_gets_on() -> None:
    cluster, step = Cluster(in_turn(), unserved_seconds=0.02), step_of([2, 2])
    cluster.place()
    loop = asyncio.get_running_loop()
    cluster.dispatcher.awaited.progressed_at = loop.time() + 60  # as if it always did
    computing = asyncio.ensure_future(cluster.compute(step))
    loop.call_later(0.1, cluster.place, 0)
    assert_well(step, await computing)


async def test_while_pairs_wait_it_is_known_for_which_experts() -> None:
    cluster, step = Cluster(in_turn()), step_of([2, 2])
    ready = np.array([[True, False, True, False]])
    cluster.dispatcher.place(Placement(cluster.services, {LAYER: ready}))
    waited_for: set[ExpertKey] = set()

    def place_them() -> None:
        waited_for.update(cluster.dispatcher.awaited.experts)
        if waited_for:
            cluster.place(0)
        else:
            asyncio.get_running_loop().call_later(0.01, place_them)

    place_them()
    assert_well(step, await cluster.compute(step))
    assert waited_for == {ExpertKey(LAYER, 1), ExpertKey(LAYER, 3)}
    assert not cluster.dispatcher.awaited.experts


async def test_attempts_at_one_service_end_with_the_time_for_them() -> None:
    cluster, step = Cluster(OVERLOADED, unserved_seconds=0.05), step_of([4])
    await cluster.compute(step)
    ending = step.batch[0].sequence.ending
    assert ending is not None
    assert isinstance(ending.error, Unavailable)
    assert errors(step) == [
        "expert 0 of layer 3 could not be computed: "
        "expert 0 of layer 3 was not computed by service-0: its queue is full"
    ]
    # After 1, 2, 4, 8, 16 and 32 ms at the earliest.
    assert 2 <= len(cluster.streams[0].frames) <= 6


async def test_nothing_is_sent_again_for_sequences_that_have_ended() -> None:
    def end_first(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        step.batch[0].sequence.end(EndReason.CANCELLED)
        raise FrameLost("the stream broke", "broken")

    cluster, step = Cluster(end_first, in_turn()), step_of([2, 2])
    output = await cluster.compute(step)
    assert [frame.requests for frame in cluster.streams[1].frames] == [(1,)]
    assert torch.equal(output[2:], UNDISTURBED[2:])


async def test_nobody_waits_for_a_replica_once_all_sequences_have_ended() -> None:
    cluster, step = Cluster(in_turn()), step_of([2, 2])
    cluster.place()
    computing = asyncio.ensure_future(cluster.compute(step))
    for work in step.batch:
        done, _ = await asyncio.wait([computing], timeout=0.01)
        assert not done
        work.sequence.end(EndReason.CANCELLED)
        cluster.dispatcher.forget([work.sequence.number])
    async with asyncio.timeout(5):
        assert (await computing).shape == UNDISTURBED.shape
    assert cluster.pairs_asked_for == [[]]


SAID: list[tuple[Behaviour, str]] = [
    (refused(3), "service-0 refused a frame: no"),
    (refused(13), "service-0 refused a frame: no"),
    (CANCELLED, "expert 0 of layer 3 was not computed by service-0: its reason is 4"),
    (
        not_finite(math.nan),
        "expert 0 of layer 3 was not computed by service-0: it returned numbers that are not "
        "finite",
    ),
]


@pytest.mark.parametrize(("behaviour", "said"), SAID)
async def test_what_a_second_service_says_too_ends_the_sequences_and_names_both(
    behaviour: Behaviour, said: str
) -> None:
    cluster, step = Cluster(behaviour, behaviour, in_turn()), step_of([2, 2])
    await cluster.compute(step)
    message = f"expert 0 of layer 3 could not be computed: {said}; service-1 said the same"
    assert errors(step) == [message, message.replace("expert 0", "expert 2", 1)]
    endings = [work.sequence.ending for work in step.batch]
    assert not any(ending and isinstance(ending.error, InvalidRequest) for ending in endings), (
        "by no client's fault"
    )
    assert cluster.pairs_asked_for == [[8], [8], []]


@pytest.mark.parametrize(("behaviour", "said"), SAID)
async def test_what_the_only_service_says_twice_ends_the_sequences(
    behaviour: Behaviour, said: str
) -> None:
    cluster, step = Cluster(behaviour), step_of([4])
    await cluster.compute(step)
    end = "it said so twice, and no other service has the expert"
    assert errors(step) == [f"expert 0 of layer 3 could not be computed: {said}; {end}"]
    assert cluster.pairs_asked_for == [[8, 8]]


@pytest.mark.parametrize("is_well", [True, False])
async def test_what_the_only_service_says_is_not_believed_while_another_is_being_tried(
    is_well: bool,
) -> None:
    asked = asyncio.Event()

    def refusing(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        if len(cluster.pairs_asked_for[0]) > 3:
            asked.set()
        return {"rows": None, "error": FrameError(3, "no")}

    cluster, step = Cluster(refusing, in_turn()), step_of([4])
    cluster.place(0, tried=[1])
    computing = asyncio.ensure_future(cluster.compute(step))
    await asyncio.wait_for(asked.wait(), 5)
    assert step.batch[0].sequence.ending is None
    cluster.place(*([0, 1] if is_well else [0]))
    output = await asyncio.wait_for(computing, 5)
    if is_well:
        assert_well(step, output)
    else:
        assert "it said so twice" in str(errors(step)[0])


async def test_services_that_say_different_things_of_pairs_are_asked_again() -> None:
    cluster = Cluster(in_turn(refused(3)), in_turn(not_finite(math.inf)))
    step = step_of([2, 2])
    assert_well(step, await cluster.compute(step))
    assert cluster.pairs_asked_for == [[8, 8], [8]]


async def test_only_rows_that_are_not_finite_are_computed_elsewhere() -> None:
    def one_bad(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        rows[5, -1] = -math.inf
        return {"rows": rows}

    cluster, step = Cluster(one_bad, in_turn()), step_of([2, 2])
    assert_well(step, await cluster.compute(step))
    assert cluster.pairs_asked_for == [[8], [1]]


async def test_of_sums_too_rows_that_are_not_finite_are_computed_elsewhere() -> None:
    def one_bad(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        rows[2, 0] = math.nan
        return {"rows": rows}

    cluster, step = Cluster(one_bad, in_turn(), combine=PartialCombine()), step_of([2, 2])
    output = await cluster.compute(step)
    torch.testing.assert_close(output, UNDISTURBED)
    assert cluster.pairs_asked_for == [[8], [2]]


async def test_rows_that_were_sent_as_what_is_not_finite_are_no_fault_of_services() -> None:
    cluster, step = Cluster(in_turn(), in_turn()), step_of([2, 2])
    hidden, index, weights = ROUTING
    hidden = hidden.clone()
    hidden[0] = math.nan
    output = await cluster.dispatcher.compute(step, LAYER, hidden, index, weights, None)
    assert output[0].isnan().all() and torch.equal(output[1:], UNDISTURBED[1:])
    assert cluster.pairs_asked_for == [[8], []]


async def test_what_a_service_says_is_kept_to_a_line(caplog: pytest.LogCaptureFixture) -> None:
    said = "no\n\x1b[2J" + 10_000 * "x"
    verbose = lambda frame, rows: {"rows": None, "error": FrameError(3, said)}  # noqa: E731
    cluster, step = Cluster(verbose), step_of([4])
    await cluster.compute(step)
    for text in (*caplog.messages, *map(str, errors(step))):
        assert text.isprintable() and len(text) < 500 and "refused a frame: no \\x1b[2Jx" in text


async def test_own_work_is_done_once_however_often_frames_are_sent() -> None:
    done: list[None] = []
    cluster, step = Cluster(BROKEN, OVERLOADED, in_turn()), step_of([4])
    assert_well(step, await cluster.compute(step, lambda: done.append(None)))
    assert len(done) == 1


async def test_a_step_that_is_cancelled_leaves_no_flight_and_no_unseen_error() -> None:
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
    has_failed = asyncio.Event()

    def fails(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        has_failed.set()
        raise FrameLost("the stream broke", "broken")

    cluster, step = Cluster(unanswered, fails, unanswered), step_of([4])
    apart = np.array(
        [[True, True, False, False], [False, False, True, False], [False, False, False, True]]
    )
    cluster.dispatcher.place(Placement(cluster.services, {LAYER: apart}))
    computing = asyncio.ensure_future(cluster.compute(step))
    await has_failed.wait()
    computing.cancel()
    await asyncio.wait([computing])
    assert computing.cancelled()
    assert [stream.answers[0].cancelled() for stream in cluster.streams] == [True, False, True]
    for stream in cluster.streams:
        stream.answers.clear()
    del computing, cluster
    gc.collect()
    assert unseen == []


async def test_each_attempt_has_a_span_that_says_which_it_is() -> None:
    cluster, step = Cluster(refused(13), OVERLOADED, in_turn()), step_of([4])
    step.spans = spans = RecordedSpans()
    assert_well(step, await cluster.compute(step))
    assert spans.frames == [
        (1, "service-0 refused a frame: no"),
        (2, "some pairs were not computed"),
        (3, ""),
    ]


async def test_failures_are_logged_once_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(BROKEN, in_turn())
    for _ in range(3):
        step = step_of([4])
        assert_well(step, await cluster.compute(step))
    assert caplog.messages == ["sending 8 pairs of layer 3 again: the stream broke"]


class CountingCombine(ExactCombine):
    """Counts how often each pair was returned."""

    def __init__(self, num_pairs: int) -> None:
        self.counts = np.zeros(num_pairs, dtype=np.int64)

    def __call__(
        self, returned: Sequence[Returned], weights: torch.Tensor, hidden: torch.Tensor
    ) -> Sums:
        for part in returned:
            np.add.at(self.counts, part.positions, 1)
        return super().__call__(returned, weights, hidden)


FAILURES: list[Behaviour] = [
    BROKEN,
    raises(Unavailable("not connected")),
    refused(8),
    refused(15),
    lambda frame, rows: {"rows": torch.cat([rows, rows])},
    NOT_HOSTED,
    OVERLOADED,
    EXPIRED,
]


def partly(pairs: set[int], stream: list[ScriptedStream]) -> Behaviour:
    """Compute all but some pairs, given for the largest frame."""

    def behaviour(frame: ReceivedFrame, rows: torch.Tensor) -> dict[str, Any]:
        left_out = tuple(sorted(pair for pair in pairs if pair < len(frame.pair_rows)))
        kept = np.setdiff1d(np.arange(len(frame.pair_rows)), left_out)
        return {
            "rows": stream[0].computed(frame, kept),
            "failures": [not_hosted(*left_out)] if left_out else [],
        }

    return behaviour


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(
            st.sampled_from(FAILURES) | st.sets(st.integers(0, 7)), max_size=3
        ),  # of each service, in turn
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_with_any_failures_each_pair_is_combined_once_and_bits_are_the_same(
    scripts: list[list[Behaviour | set[int]]], may_split: bool, seed: int
) -> None:
    async def run() -> None:
        combine = CountingCombine(INDEX.numel())
        cluster = Cluster(*[in_turn() for _ in scripts], combine=combine)
        if may_split:
            cluster.know_costs()
        for stream, script in zip(cluster.streams, scripts, strict=True):
            stream.behaviour = in_turn(
                *[partly(item, [stream]) if isinstance(item, set) else item for item in script]
            )
        generator = np.random.default_rng(seed)
        ready = generator.random((len(scripts), NUM_EXPERTS)) < 0.6
        ready[generator.integers(len(scripts), size=NUM_EXPERTS), np.arange(NUM_EXPERTS)] = True
        cluster.dispatcher.place(Placement(cluster.services, {LAYER: ready}))
        step = step_of([1, 3])
        assert_well(step, await cluster.compute(step))
        assert (combine.counts == 1).all()

    asyncio.run(run())
